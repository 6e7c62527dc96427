"""What a year of commits costs: each curve at three sizes, a decade apart.

    python -m tests.bench.bench_growth [--other before=/path/to/a/checkout] [--only lag_of_two]

Calls and bytes are exact. CPU and memory are this machine's, of one process for each size. With
``--other`` the same is measured with the package of another checkout, in turns. The table of slopes
has by how much a figure grows from the second size to the third: 10 is linear, 100 quadratic.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
OURS = "this build"
SIZES = {
    "whole_history": ("commits of one file, all of them", (100, 1_000, 10_000)),
    "dearest_append": ("the dearest of 65 appends behind live files", (6_400, 19_200, 102_400)),
    "all_live_files": ("a walk over all live files", (1_000, 10_000, 100_000)),
    "lag_of_two": ("files of the last two hours, behind commits", (10, 100, 1_000)),
    "one_record": ("one commit of a table of columns", (16, 160, 1_600)),
}
BYTES = ("read", "written", "state", "live", "memory")


def figures(curve: str, size: int, package: Path) -> dict[str, Any]:
    """Return the figures of a curve at a size, with the package of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        # Our tests, and the package of the checkout.
        (Path(folder) / "tests").symlink_to(REPOSITORY / "tests")
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.growth_case", curve, str(size)],
            env=dict(os.environ) | {"PYTHONPATH": f"{folder}{os.pathsep}{package}"},
            cwd=folder, stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def text(name: str, value: float) -> str:
    """Return a figure with its unit."""
    if name in BYTES:
        return f"{value / 1e6:,.1f} MB" if value >= 1e5 else f"{value / 1e3:,.1f} KB"
    return f"{value:,.2f} s" if name == "cpu" else f"{value:,}"


def main() -> int:
    """Print the tables and return the exit code."""
    parser = argparse.ArgumentParser(description="What a long history costs.")
    parser.add_argument("--other", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--only", action="append", choices=SIZES, default=[])
    parser.add_argument("--json", type=Path, help="Where to write the figures, for growth_chart.")
    parser.add_argument("--sizes", type=lambda text: tuple(map(int, text.split(","))))
    given = parser.parse_args()
    packages = {OURS: REPOSITORY} | {
        name: Path(folder) for name, _, folder in (one.partition("=") for one in given.other)
    }
    figures_of: list[dict[str, Any]] = []
    for curve in given.only or SIZES:
        title, sizes = SIZES[curve]
        print(f"\n{title} (`{curve}`)\n", flush=True)
        names: list[str] = []
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in packages}
        for size in given.sizes or sizes:
            for build, package in packages.items():
                found = figures(curve, size, package)
                rows[build].append(found)
                figures_of.append({"curve": curve, "size": size, "build": build, **found})
                if not names:
                    names = list(found)
                    print("| size | | " + " | ".join(names) + " |")
                    print("| ---: | --- |" + " ---: |" * len(names))
                cells = " | ".join(text(name, found[name]) for name in names)
                print(f"| {size:,} | {build} | {cells} |", flush=True)
        for build, of in rows.items():
            if len(of) > 1:
                last, before = of[-1], of[-2]
                grown = (f"{last[n] / before[n]:.1f}" if before[n] else "" for n in names)
                print(f"| grown by | {build} | {' | '.join(grown)} |")
    if given.json:
        given.json.write_text(json.dumps(figures_of, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

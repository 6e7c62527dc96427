"""Draws the curves of bench_growth, one build beside the other: docs/growth.svg.

    python -m tests.bench.bench_growth --other before=/path/to/a/checkout --json figures.json
    uv run --no-project --with matplotlib==3.10.8 tests/bench/growth_chart.py figures.json

Matplotlib is not among the project's own dependencies: only this needs it.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

PICTURE = Path(__file__).parents[2] / "docs" / "growth.svg"
PANELS = (
    ("whole_history", "cpu", "commits of one file", "CPU of all commits, s"),
    ("whole_history", "state", "commits of one file", "state, MB"),
    ("dearest_append", "cpu", "live files", "CPU of the most expensive append, s"),
    ("dearest_append", "memory", "live files", "memory of the most expensive append, MB"),
    ("lag_of_two", "calls", "commits of 10 partitions", "calls to find the last two hours"),
    ("lag_of_two", "read", "commits of 10 partitions", "bytes read to find them, MB"),
)
BYTES = ("state", "memory", "read")
NAMES = {"this build": "now"}
STYLES = {"now": {"color": "#1a5fb4", "marker": "o"}, "before": {"color": "#a51d2d", "marker": "s"}}


def draw(figures: list[dict[str, Any]]) -> None:
    """Write the picture; the same figures give the same bytes."""
    mpl.rcParams.update({"svg.hashsalt": "growth", "svg.fonttype": "none", "font.size": 9})
    _, axes = plt.subplots(3, 2, figsize=(9, 9), layout="constrained")
    for axis, (curve, figure, below, title) in zip(axes.flat, PANELS, strict=True):
        points: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for one in figures:
            if one["curve"] == curve:
                value = one[figure] / (1e6 if figure in BYTES else 1)
                points[NAMES.get(one["build"], one["build"])].append((one["size"], value))
        for name, of in points.items():
            axis.plot(*zip(*sorted(of), strict=True), label=name, **STYLES.get(name, {}))
        axis.set(xscale="log", xlabel=below, title=title, ylim=(0, None))
        axis.grid(visible=True, alpha=0.3)
        axis.legend()
    plt.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    draw([one for name in sys.argv[1:] for one in json.loads(Path(name).read_text())])

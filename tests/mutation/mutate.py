"""Changes lines of the core, one at a time, and lists the changes that no test notices.

``make mutate`` runs it; it takes hours. cosmic-ray makes the mutants and runs the tests that
modules.toml names for each part of the core. It runs a sample, which the seed decides: of each kind
of mutant one a place, and of these as many as asked for. A run that was stopped goes on where it
was. equivalent.toml lists survivors that are the same program, with the reason.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SKIPPED = ("BitOr", "RemoveDecorator")
"""Parts of operators' names: nearly every ``|`` of the core stands in an annotation."""


@dataclass(frozen=True)
class Part:
    """A part of the core."""

    name: str
    paths: list[str]
    tests: list[str]


@dataclass(frozen=True)
class Mutant:
    """A mutant that was run."""

    place: str
    operator: str
    outcome: str
    diff: str


def parts() -> dict[str, Part]:
    """Return what modules.toml lists, by name."""
    listed = tomllib.loads((HERE / "modules.toml").read_text())
    return {name: Part(name, **found) for name, found in listed.items()}


def equivalents() -> set[str]:
    """Return the diffs of mutants that are the same program, changed lines alone."""
    listed = tomllib.loads((HERE / "equivalent.toml").read_text()).get("mutant", [])
    return {f"-{one['line'].strip()}\n+{one['mutant'].strip()}" for one in listed}


def changed(diff: str) -> str:
    """Return the lines that a diff takes away and adds, without their indentation."""
    lines = [line for line in diff.splitlines() if line[:1] in {"-", "+"}]
    return "\n".join(x[0] + x[1:].strip() for x in lines if x[:3] not in {"---", "+++"})


def copy_tree(folder: Path) -> None:
    """Copy what git knows, as it is now; environment and tools are linked."""
    shutil.rmtree(folder, ignore_errors=True)
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for name in (".venv", ".tools"):
        (folder / name).symlink_to(ROOT / name)


def chosen(session: Path, seed: int, count: int) -> list[str]:
    """Return the jobs of a session's sample, in an order by chance."""
    places: dict[tuple[str, int, int, str], list[str]] = {}
    with closing(sqlite3.connect(session)) as connection:
        rows = connection.execute(
            "select module_path, start_pos_row, start_pos_col, operator_name, job_id "
            "from mutation_specs order by 1, 2, 3, 4, occurrence, end_pos_row, end_pos_col"
        ).fetchall()
    for path, row, column, operator, job in rows:
        line = (ROOT / path).read_text().splitlines()[row - 1]
        if "TYPE_CHECKING" not in line and not any(skipped in operator for skipped in SKIPPED):
            places.setdefault((path, row, column, operator.split("_")[0]), []).append(job)
    by_chance = random.Random(seed)
    one_each = [by_chance.choice(jobs) for jobs in places.values()]
    return by_chance.sample(one_each, min(count, len(one_each)))


def keep(session: Path, jobs: list[str]) -> None:
    """Drop all other jobs of a session."""
    with closing(sqlite3.connect(session)) as connection, connection:
        connection.execute("create temp table kept (job_id text primary key)")
        connection.executemany("insert into kept values (?)", [(job,) for job in jobs])
        for table in ("mutation_specs", "work_items"):
            connection.execute(f"delete from {table} where job_id not in (select job_id from kept)")


def prepare(part: Part, options: argparse.Namespace) -> list[Path]:
    """Make a part's sessions, one a process, unless a run before has; return them."""
    folder = options.folder / f"{part.name}-{options.seed}-{options.mutants}-{options.processes}"
    sessions = [folder / f"{n}.sqlite" for n in range(options.processes)]
    if all(session.exists() for session in sessions):
        return sessions
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tests = " ".join(part.tests)
    (folder / "config.toml").write_text(
        "[cosmic-ray]\n"
        f"module-path = {part.paths!r}\n"
        f"timeout = {float(options.timeout)}\n"
        "excluded-modules = []\n"
        f'test-command = "{sys.executable} -m pytest -x -q -n 0 -p no:cacheprovider {tests}"\n'
        '[cosmic-ray.distributor]\nname = "local"\n'
    )
    whole = folder / "all.sqlite"
    run(options, "init", folder / "config.toml", whole, cwd=ROOT)
    jobs = chosen(whole, options.seed, options.mutants)
    for n, session in enumerate(sessions):
        made = folder / "new.sqlite"
        shutil.copy(whole, made)
        keep(made, jobs[n :: len(sessions)])
        made.rename(session)
    return sessions


def run(options: argparse.Namespace, command: str, *arguments: Path, cwd: Path) -> None:
    """Run a command of cosmic-ray."""
    # Mutants are made in a copy, and the tests are to find nothing of the original.
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "EXHAUSTIVE"}}
    subprocess.run(
        [options.cosmic_ray, command, *map(str, arguments)], cwd=cwd, env=environment, check=True
    )


def execute(session: Path, options: argparse.Namespace) -> None:
    """Run what is left of a session, in a fresh copy of the tree."""
    with closing(sqlite3.connect(session)) as connection:
        left = connection.execute(
            "select count(*) from work_items where job_id not in (select job_id from work_results)"
        ).fetchone()[0]
    if left:
        copy = session.with_suffix("")
        copy_tree(copy)
        config = session.with_name("config.toml")
        run(options, "baseline", config, cwd=copy)  # the tests must pass where nothing is changed
        run(options, "exec", config, session, cwd=copy)
        shutil.rmtree(copy)


def results(sessions: list[Path]) -> list[Mutant]:
    """Return the mutants that were run."""
    found = []
    for session in sessions:
        with closing(sqlite3.connect(session)) as connection:
            found += connection.execute(
                "select module_path || ':' || start_pos_row, operator_name, "
                "coalesce(test_outcome, worker_outcome), coalesce(diff, '') "
                "from work_results join mutation_specs using (job_id) order by 1"
            ).fetchall()
    return [Mutant(*row) for row in found]


def show(part: Part, mutants: list[Mutant]) -> bool:
    """Print a part's survivors and figures; return whether none survived."""
    alive = [one for one in mutants if one.outcome.upper() == "SURVIVED"]
    same = equivalents()
    survivors = [one for one in alive if changed(one.diff) not in same]
    for one in survivors:
        print(f"\n{one.place} {one.operator}\n{changed(one.diff)}")
    counted = len(mutants) - len(alive) + len(survivors)
    killed = counted - len(survivors)
    print(
        f"\n{part.name}: {killed} of {counted} mutants killed, "
        f"{100 * killed / max(counted, 1):.0f} %; {len(alive) - len(survivors)} equivalent",
        flush=True,
    )
    return not survivors


def main() -> int:
    """Run what is asked for; return 1 if a mutant survived."""
    known = parts()
    parser = argparse.ArgumentParser(prog="mutate", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*known, []], help="all, unless named")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutants", type=int, default=30, help="of each part")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--timeout", type=int, default=600, help="seconds a mutant's tests may take"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / ".mutation")
    parser.add_argument("--cosmic-ray", required=True, type=Path)
    options = parser.parse_args()
    options.folder, options.cosmic_ray = options.folder.resolve(), options.cosmic_ray.absolute()
    whole = True
    for name in options.parts or known:
        sessions = prepare(known[name], options)
        with ThreadPoolExecutor(len(sessions)) as pool:
            list(pool.map(lambda one: execute(one, options), sessions))
        whole &= show(known[name], results(sessions))
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())

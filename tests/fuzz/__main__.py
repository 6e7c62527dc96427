"""Fuzz for as long as you like: ``python -m tests.fuzz --minutes 60``, or ``make fuzz``.

Each batch of inputs is read in a process of its own, which may die of them. A find is written to
``tests/fuzz/finds``; reduce it, fix what it shows, and keep it: the tests read it from then
on.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.targets import targets

FINDS = Path(__file__).parent / "finds"
BATCH = 100
SECONDS = 20
"""CPU that one input may take; more is a find."""
WAITING = 15 * SECONDS
"""How long it may take on a busy machine; longer is a find too: it waits for something."""
MEMORY = 4 * 2**30
"""Address space of a batch's process; an input that needs more is a find."""


def _late(*_: object) -> None:
    raise TimeoutError(f"an input took more than {SECONDS} s of CPU, or {WAITING} s")


def run_batch(name: str, seed: int) -> int:
    """Read one batch in this process; prints an object a line, each input before it is read."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _late)
    signal.signal(signal.SIGPROF, _late)
    target, counts, slowest = targets()[name], Counter[str](), 0.0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for data in target.examples:  # imports are no input's
            target.try_one(data, Path(folder))
        for number, data in enumerate(target.inputs(seed, BATCH)):
            print(json.dumps({"input": number}), flush=True)
            began = time.process_time()
            signal.alarm(WAITING)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                counts[target.try_one(data, Path(folder))] += 1
            except BaseException:  # noqa: BLE001 - whatever it is, it is a find
                counts["found"] += 1
                print(json.dumps({"found": number, "why": traceback.format_exc()[-2000:]}))
            finally:
                signal.alarm(0)
                signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"counts": counts, "slowest": round(slowest, 2), "peak_mb": peak}), flush=True)
    return 0


def one_batch(name: str, seed: int) -> tuple[Counter[str], float, int]:
    """Run a batch in a process of its own and keep what it finds."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--batch", name, "--seed", str(seed)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    inputs = targets()[name].inputs(seed, BATCH)
    for line in lines:
        if "found" in line:
            keep(name, inputs[line["found"]], line["why"])
    if done.returncode or not lines or "counts" not in lines[-1]:
        last = max((line["input"] for line in lines if "input" in line), default=0)
        keep(name, inputs[last], f"the process ended with {done.returncode}: {done.stderr[-2000:]}")
        return Counter(found=1, lost=BATCH - last - 1), 0.0, 0
    return Counter(lines[-1]["counts"]), lines[-1]["slowest"], lines[-1]["peak_mb"]


def keep(name: str, data: bytes, why: str) -> None:
    """Write a find down."""
    path = FINDS / f"{name}.{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    print(f"found {path}:\n{why}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz; returns 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None, help="of the first batch")
    parser.add_argument("--target", choices=[*targets()], action="append", help="default: all")
    parser.add_argument("--batch", choices=[*targets()], help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**9) if given.seed is None else given.seed
    if given.batch:
        return run_batch(given.batch, seed)
    until, totals = time.monotonic() + given.minutes * 60, dict[str, Counter[str]]()
    worst: dict[str, tuple[float, int]] = {}
    for name in itertools.cycle(given.target or targets()):
        if time.monotonic() > until:
            break
        counts, slowest, peak = one_batch(name, seed)
        print(f"{name}, seed {seed}: {dict(counts)}", flush=True)
        totals.setdefault(name, Counter()).update(counts)
        before = worst.get(name, (0.0, 0))
        worst[name] = max(before[0], slowest), max(before[1], peak)
        seed += 1
    for name, counts in totals.items():
        slowest, peak = worst[name]
        print(f"{name}: {dict(counts)}, at most {slowest:.2f} s of CPU and {peak} MB")
    return int(any(counts["found"] for counts in totals.values()))


if __name__ == "__main__":
    sys.exit(main())

"""Runs a command as a whole process and reports how long it took and what it needed."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.1
PROC = Path("/proc")


class CommandFailed(Exception):
    """A measured command exited non-zero; the message ends with what it printed last."""


@dataclass(frozen=True)
class Measured:
    """One run of one command.

    Attributes:
        seconds: Wall clock from before the process was started until it was gone.
        python_peak_bytes: Highest resident set of any single Python process of its tree.
        tree_peak_bytes: Highest sum of the resident sets of all processes of its tree, as sampled.
    """

    seconds: float
    python_peak_bytes: int
    tree_peak_bytes: int


def measure(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Measured:
    """Run ``command`` to its end, its output in ``log``.

    Raises:
        CommandFailed: It exited non-zero.
    """
    os.sync()  # what the command before has left dirty is not this one's to write
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        memory = _Memory(process.pid)
        sampler = threading.Thread(target=memory.watch, daemon=True)
        sampler.start()
        code = process.wait()
        seconds = time.perf_counter() - start
    memory.done.set()
    sampler.join()
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise CommandFailed(f"{command[0]} exited with {code}:\n{tail}")
    return Measured(seconds, memory.python_peak, memory.tree_peak)


def print_runs(heading: str, runs: Mapping[str, Sequence[Measured]]) -> dict[str, float]:
    """Print all runs beside Spark JDBC, and return the median seconds by name."""
    median = {name: statistics.median(run.seconds for run in of) for name, of in runs.items()}
    print(f"\n{heading}; {os.cpu_count()} cores, {platform.platform()}")
    print(f"{'':24}{'median':>9}{'range':>15}{'of Spark':>10}{'Python peak':>13}{'all peak':>11}")
    for name, of in runs.items():
        seconds = [run.seconds for run in of]
        print(
            f"{name:<24}{median[name]:>7.1f} s{f'{min(seconds):.1f}-{max(seconds):.1f} s':>15}"
            f"{median[name] / median['Spark JDBC']:>10.2f}"
            f"{max(r.python_peak_bytes for r in of) / 1e6:>10.0f} MB"
            f"{max(r.tree_peak_bytes for r in of) / 1e6:>8.0f} MB"
        )
    return median


class _Memory:
    """Samples the process tree below one process.

    A process's own peak is the kernel's high-water mark (``VmHWM``), so that only growth in the
    last tenth of a second before its end can be missed.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self.python_peak = 0
        self.tree_peak = 0
        self.done = threading.Event()

    def watch(self) -> None:
        while not self.done.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        resident = 0
        for pid in _tree(self.root):
            try:
                status = (PROC / str(pid) / "status").read_text()
                executable = (PROC / str(pid) / "exe").readlink().name
            except OSError:  # gone meanwhile
                continue
            resident += _kilobytes(status, "VmRSS:") * 1024
            if executable.startswith("python"):
                self.python_peak = max(self.python_peak, _kilobytes(status, "VmHWM:") * 1024)
        self.tree_peak = max(self.tree_peak, resident)


def _tree(root: int) -> list[int]:
    """Return ``root`` and all its descendants that live now."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _kilobytes(status: str, key: str) -> int:
    for line in status.splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0

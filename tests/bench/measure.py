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
        cpu_seconds: Of all processes of its tree, as sampled. The server's is not in it.
        python_peak_bytes: Highest resident set of any single Python process of its tree.
        tree_peak_bytes: Highest sum of the resident sets of all processes of its tree, as sampled.
    """

    seconds: float
    cpu_seconds: float
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
        tree = _Tree(process.pid)
        sampler = threading.Thread(target=tree.watch, daemon=True)
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    code = process.returncode = os.waitstatus_to_exitcode(status)
    tree.done.set()
    sampler.join()
    # Of the process itself and those that it has waited for the system knows all; of others, such
    # as workers that end with their server, what was sampled last.
    cpu = max(usage.ru_utime + usage.ru_stime, tree.cpu_seconds)
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise CommandFailed(f"{command[0]} exited with {code}:\n{tail}")
    return Measured(seconds, cpu, tree.python_peak, tree.tree_peak)


def print_runs(
    heading: str, runs: Mapping[str, Sequence[Measured]], baseline: str = "Spark JDBC"
) -> dict[str, float]:
    """Print all runs as a Markdown table, and return the median seconds by name.

    Ratios are those of the runs of one round, which the machine's other load hurts alike.

    Args:
        heading: What was measured.
        runs: By name, as many of each, in the order of the rounds.
        baseline: What the ratios are to.
    """
    median = {name: statistics.median(run.seconds for run in of) for name, of in runs.items()}
    print(f"\n{heading}; {os.cpu_count()} cores, {platform.platform()}\n")
    print(f"| | median | range | CPU | of {baseline} | Python peak | all peak |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, of in runs.items():
        seconds = [run.seconds for run in of]
        ratios = [
            run.seconds / other.seconds for run, other in zip(of, runs[baseline], strict=True)
        ]
        print(
            f"| {name} | {median[name]:.1f} s | {min(seconds):.1f}-{max(seconds):.1f} s "
            f"| {statistics.median(run.cpu_seconds for run in of):.1f} s "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) "
            f"| {max(r.python_peak_bytes for r in of) / 1e6:.0f} MB "
            f"| {max(r.tree_peak_bytes for r in of) / 1e6:.0f} MB |"
        )
    print(flush=True)
    return median


class _Tree:
    """Samples the process tree below one process.

    A process's own peak is the kernel's high-water mark (``VmHWM``), so that only growth in the
    last tenth of a second before its end can be missed.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self.python_peak = 0
        self.tree_peak = 0
        self._cpu_ticks: dict[int, int] = {}
        self.done = threading.Event()

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all processes that were seen."""
        return sum(self._cpu_ticks.values()) / os.sysconf("SC_CLK_TCK")

    def watch(self) -> None:
        while not self.done.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        resident = 0
        for pid in _tree(self.root):
            try:
                status = (PROC / str(pid) / "status").read_text()
                executable = (PROC / str(pid) / "exe").readlink().name
                fields = (PROC / str(pid) / "stat").read_text().rpartition(") ")[2].split()
            except OSError:  # gone meanwhile
                continue
            self._cpu_ticks[pid] = int(fields[11]) + int(fields[12])
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

"""The folders that lenders of MySQL sessions make: what a killed one leaves is cleaned up."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from extract_jobs.sources.mysql import lending
from extract_jobs.sources.mysql.lending import Lender

KILLED = """
import os, signal, tempfile
from extract_jobs.sources.mysql.lending import Lender
print(Lender([]).place, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextlib.contextmanager
def lender() -> Iterator[Path]:
    """Give the folder of a lender with nothing to lend."""
    made = Lender([])
    try:
        yield Path(made.place).parent
    finally:
        made.close()


def killed() -> Path:
    """Return the folder of a lender that was killed."""
    done = subprocess.run([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True,
                          check=False)  # fmt: skip
    assert done.returncode < 0
    return aged(Path(done.stdout.strip()).parent)


def aged(folder: Path) -> Path:
    """Make a folder look old."""
    then = time.time() - lending._LEFTOVER_SECONDS - 1
    os.utime(folder, (then, then))
    return folder


def test_the_next_lender_removes_what_a_killed_one_left(temporary: Path) -> None:
    left = killed()
    assert (left / "sessions").exists()
    with lender() as own:
        assert list(temporary.iterdir()) == [own]
    assert list(temporary.iterdir()) == []


def test_a_lender_that_lives_keeps_its_folder(temporary: Path) -> None:
    with lender() as first:
        aged(first)
        with lender() as second:
            assert set(temporary.iterdir()) == {first, second}


def test_only_old_folders_of_this_user_that_hold_nothing_else_are_removed(temporary: Path) -> None:
    young = temporary / "extract-lent-young"
    young.mkdir()
    full = temporary / "extract-lent-full"
    full.mkdir()
    (full / "something").write_text("of somebody")
    elsewhere = temporary / "other"
    elsewhere.mkdir()
    aged(elsewhere)
    link = temporary / "extract-lent-link"
    link.symlink_to(elsewhere)
    kept = {young, aged(full), elsewhere, link}
    if os.geteuid() == 0:
        foreign = temporary / "extract-lent-foreign"
        foreign.mkdir()
        os.chown(foreign, 12345, 12345)
        kept.add(aged(foreign))
    with lender():
        pass
    assert set(temporary.iterdir()) == kept
    assert (full / "something").exists()


def test_a_start_removes_a_bounded_number(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "_MOST_LEFTOVERS", 2)
    for number in range(5):
        folder = temporary / f"extract-lent-{number}"
        folder.mkdir()
        aged(folder)
    with lender() as own:
        assert len(set(temporary.iterdir()) - {own}) == 3

"""The driver killed at every storage call of a run that keeps files of the one before.

Whatever it left, the next attempt and the run after it succeed, and the lake equals the table, also
where the table has changed in between.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from infra.local.emulator import Emulator
from tests.support.crash import Driver, Lake, killable
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres import Server
from tests.support.sampling import sample

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1800)]

REUSE = {
    "reuse": "auto",
    "split": {"target_bytes": 8192, "max_connections": 1},
    "target": {"write_mode": "overwrite"},
}


class Table:
    """A table of forty rows on four pages, and the extracts of it into one lake after another."""

    def __init__(self, server: Server, driver: Driver, environment: dict[str, str]) -> None:
        self.server, self.driver, self.environment = server, driver, environment
        self.password = {"CRASH_PASSWORD": server.password}

    def renew(self) -> None:
        """Put the rows back as they were before the first run, and change some after it."""
        self.server.execute(
            "drop table if exists public.kept",
            "create table public.kept (id int, note text)",
            "insert into public.kept select g, repeat('n', 700) from generate_series(1, 40) g",
        )

    def extract(
        self, lake: Lake, run: str, environment: dict[str, str], attempt: int = 1, **more: Any
    ) -> Any:
        spec = lake.spec(self.server, run, attempt, table="public.kept", **REUSE)
        return self.driver.run(spec, self.password | environment, **more)

    def first(self, base: str) -> Lake:
        """Return a lake with one commit, of which half is out of date."""
        self.renew()
        lake = Lake(f"{base}/{uuid4().hex[:12]}", self.environment)
        assert self.extract(lake, "first", self.environment).exit == 0
        self.change(1, 12)
        return lake

    def change(self, first: int, last: int) -> None:
        """Give some rows another note."""
        self.server.execute(
            f"update public.kept set note = note || '{last}' where id between {first} and {last}"
        )

    def assert_whole(self, lake: Lake, context: str) -> None:
        """Check the next attempts, and what they leave."""
        # A run that had committed keeps the rows of its snapshot.
        right = [self.notes()]
        self.change(30, 33)
        right.append(self.notes())
        for run, attempt in (("r", 3), ("s", 1)):
            ended = self.extract(lake, run, self.environment, attempt, then_recover=True)
            assert ended.exit == 0, f"{context}: {ended.stderr}"
            assert lake.staged() == [], context
            assert lake.read("note") in right, (context, run)
            right = right[-1:]

    def notes(self) -> list[str]:
        """Return what the table holds, sorted as Python sorts."""
        with self.server.connect() as connection:
            return sorted(note for (note,) in connection.execute("select note from public.kept"))


def test_local_every_call(pg: Server, driver: Driver, tmp_path: Path) -> None:
    table, count = Table(pg, driver, {}), tmp_path / "count"
    lake = table.first(str(tmp_path))
    assert table.extract(lake, "r", {}, kill_call=0, count_to=str(count)).exit == 0
    assert lake.report("r")["kept_ranges"] >= 1
    calls = int(count.read_text())
    for number in sample(range(1, calls + 1), 3):
        for sign in (1, -1) if number == calls else (1,):
            context = f"killed {'before' if sign > 0 else 'after'} call {number} of {calls}"
            lake = table.first(str(tmp_path))
            ended = table.extract(lake, "r", {}, kill_call=number * sign)
            assert ended.exit == -signal.SIGKILL, f"{context}: {ended.stderr}"
            table.assert_whole(lake, context)


def test_local_every_call_of_two_attempts(pg: Server, driver: Driver, tmp_path: Path) -> None:
    """The first attempt of the first run is killed halfway, the second at every call."""
    table, count = Table(pg, driver, {}), tmp_path / "count"

    def begun(number: int) -> Lake:
        table.renew()
        lake = Lake(f"{tmp_path}/{uuid4().hex[:12]}")
        assert table.extract(lake, "r", {}, kill_call=number).exit == -signal.SIGKILL
        return lake

    def noted(lake: Lake) -> int:
        return len(list(Path(lake.state).glob("staged/r/*/*.json")))

    halfway = next(number for number in range(30, 100, 4) if noted(begun(number)) >= 2)
    lake = begun(halfway)
    assert table.extract(lake, "r", {}, 2, kill_call=0, count_to=str(count)).exit == 0
    assert lake.report("r", 2)["resumed_splits"] >= 1
    calls = int(count.read_text())
    for number in sample(range(1, calls + 1), 3):
        context = f"the second attempt killed before call {number} of {calls}"
        lake = begun(halfway)
        ended = table.extract(lake, "r", {}, 2, kill_call=number)
        assert ended.exit == -signal.SIGKILL, f"{context}: {ended.stderr}"
        table.assert_whole(lake, context)


def test_s3_every_call(
    pg: Server, driver: Driver, ministack: Emulator, proxy: FaultProxy, bucket: str
) -> None:
    table = Table(pg, driver, ministack.environment())
    lake = table.first(bucket)
    proxy.clear()
    assert table.extract(lake, "r", proxy.environment()).exit == 0
    operations = proxy.operations()
    for number, operation in sample(sample(killable(operations), 1, by=lambda call: call[1]), 5):
        context = f"killed after call {number} of {len(operations)}, {operation}"
        lake = table.first(bucket)
        proxy.clear()
        proxy.fail(number, "kill_after")
        ended = table.extract(lake, "r", proxy.environment())
        assert ended.exit == -signal.SIGKILL, context
        table.assert_whole(lake, context)

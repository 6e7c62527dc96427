"""The second of two incremental runs, its driver killed around every call to S3."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from infra.local.emulator import Emulator
from tests.support.crash import ROWS, Driver, Ended, Lake, killable
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.postgres import Server
from tests.support.sampling import sample

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1800)]

LATE = 28
"""The first run does not see this row; the second does, within its lag."""


@dataclass
class Runs:
    """Two runs of one table, whose watermark is its key."""

    driver: Driver
    server: Server
    lake: Lake

    def extract(
        self, run_id: str, attempt: int = 1, environment: dict[str, str] | None = None, **more: Any
    ) -> Ended:
        first = run_id == "first"
        spec = self.lake.spec(
            self.server,
            run_id,
            attempt,
            mode="incremental",
            watermark={"column": "id", "lag": 5} | ({"upper": 30} if first else {}),
            columns={"key": ["id"]},
            where=f"id <> {LATE}" if first else None,
            target={"partition_by": ["part"]},
        )
        variables = {"CRASH_PASSWORD": self.server.password}
        return self.driver.run(spec, variables | (environment or self.lake.environment), **more)


@pytest.mark.parametrize("fault", ["kill_after"])
@pytest.mark.timeout(900)
def test_every_call_of_a_second_run(
    driver: Driver, database: Server, ministack: Emulator, proxy: FaultProxy, bucket: str,
    fault: Fault,
) -> None:  # fmt: skip
    """Takes over ten seconds: a process is killed at a call of every operation."""
    runs = Runs(driver, database, Lake(f"{bucket}/{uuid4().hex[:12]}", ministack.environment()))
    ended = runs.extract("first")
    assert ended.exit == 0, ended.stderr
    assert runs.lake.read() == [r for r in ROWS if r <= 30 and r != LATE]
    after_first = runs.lake.contents()
    proxy.clear()
    ended = runs.extract("r", environment=proxy.environment())
    assert ended.exit == 0, ended.stderr
    operations = proxy.operations()
    assert "CompleteMultipartUpload" in operations
    chosen = sample(sample(killable(operations), 1, by=lambda call: call[1]), 5)
    for number, operation in chosen:
        context = f"{fault} at call {number} of {len(operations)}, {operation}"
        runs.lake.restore(after_first)
        proxy.clear()
        proxy.fail(number, fault)
        ended = runs.extract("r", environment=proxy.environment())
        assert ended.exit == -signal.SIGKILL, context
        ended = runs.extract("r", 2, then_recover=True)
        assert ended.exit == 0, f"{context}: {ended.stderr}"
        assert runs.lake.read() == ROWS, context
        assert runs.lake.staged() == [], context
        report = runs.lake.report("r", 2)
        assert report["watermark"] == {"type": "integer", "text": "40"}, context
        assert (report["rows"], report["repeated_rows"]) == (11, 4), context
        ended = runs.extract("third")
        assert ended.exit == 0, f"{context}: {ended.stderr}"
        assert runs.lake.read() == ROWS, context

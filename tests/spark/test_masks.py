"""A masked column leaves no trace: not when all goes well, not on failure, not after a kill."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from extract_jobs.errors import ExtractError
from extract_jobs.run import run_extract
from extract_jobs.spark.java import bundled_java_home
from extract_jobs.spec.extract_spec import ExtractSpec
from tests.support.crash import Lake
from tests.support.java import QUICK_JAVA_ENVIRONMENT
from tests.support.postgres import Server

TEXT = "canary-5f1d0e7b"
NUMBER = 7_305_914_826_037_591
KEY = "never-to-be-seen-mask-key-0123"
NEEDLES = (
    TEXT.encode(), TEXT.encode().hex().encode(), str(NUMBER).encode(), NUMBER.to_bytes(8, "little"),
    KEY.encode(),
)  # fmt: skip

KILLED = """
import logging, os, sys
from pathlib import Path
from pyspark.sql import SparkSession
from extract_jobs.reporting.progress import Progress
from extract_jobs.run import run_extract
from extract_jobs.spec.extract_spec import parse_spec

class Die(Progress):
    def phase(self, name):
        if name == "commit":
            os._exit(9)

logging.basicConfig(level=logging.DEBUG)
work = sys.argv[2]
builder = SparkSession.builder.master("local[2]")
for key, value in {
    "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "512m", "spark.eventLog.enabled": "true",
    "spark.eventLog.dir": "file://" + work, "spark.eventLog.compress": "false",
    "spark.local.dir": work + "/local",
    "spark.driver.extraJavaOptions": "-Dderby.system.home=" + work,
}.items():
    builder = builder.config(key, value)
spec = parse_spec(Path(sys.argv[1]).read_text())
spark = builder.getOrCreate() if spec.engine == "spark" else None
run_extract(spec, spark=spark, progress=Die())
"""


def fill(server: Server, rows: int) -> None:
    server.execute(
        "create table t"
        " (id int primary key, who text, num bigint, place text, raw bytea, pad text)",
        f"insert into t select g, '{TEXT}', {NUMBER}, '{TEXT}', '{TEXT}'::bytea, repeat('x', 500)"
        f" from generate_series(1, {rows}) g",
        "analyze t",
    )


def spec(server: Server, lake: Lake, run_id: str, mask: str, **more: Any) -> ExtractSpec:
    masks = dict.fromkeys(("who", "num", "raw"), mask) | {"place": "hash"}
    columns = {"mask": masks, "mask_key": {"env": "MASK_KEY"}, **more.pop("columns", {})}
    target = {"compression": "none", "write_mode": "append", "partition_by": ["place"]}
    return ExtractSpec.model_validate(
        lake.spec(server, run_id, columns=columns, target=target, **more)
    )


def traces(folder: Path) -> list[str]:
    """Return each file, name included, that holds what nobody should find."""
    found = []
    for path in folder.rglob("*"):
        data = str(path).encode() + (path.read_bytes() if path.is_file() else b"")
        found += [f"{needle!r} in {path}" for needle in NEEDLES if needle in data]
    return found


@pytest.fixture
def lake(tmp_path: Path, pg_database: Server, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setenv("CRASH_PASSWORD", pg_database.password)
    monkeypatch.setenv("MASK_KEY", KEY)
    return Lake(str(tmp_path / "lake"))


def test_the_search_finds_what_is_there(pg_database: Server, lake: Lake, tmp_path: Path) -> None:
    fill(pg_database, 1)
    plain = {"mask": {}, "mask_key": None}
    run_extract(spec(pg_database, lake, "r", "null", columns=plain, split={"strategy": "none"}))
    found = " ".join(traces(tmp_path))
    assert all(repr(needle) in found for needle in (NEEDLES[0], NEEDLES[3]))
    assert f"place={TEXT}" in found


@pytest.mark.parametrize("mask", ["hash", "redact", "null"])
def test_success_and_failure(
    pg_database: Server, lake: Lake, tmp_path: Path, caplog: pytest.LogCaptureFixture, mask: str
) -> None:
    caplog.set_level(logging.DEBUG)
    fill(pg_database, 3)
    report = run_extract(spec(pg_database, lake, "good", mask, split={"strategy": "none"}))
    assert report.rows == 3
    [file] = lake.visible()
    shown = [report.to_json()]
    values = lake.table(file)
    if mask == "hash":
        assert values["who"].to_pylist() == values["raw"].to_pylist()  # the same bytes
        assert f"place={values['who'][0]}/" in file
    else:
        assert values["who"].to_pylist() == [None if mask == "null" else "***"] * 3
    # A number that does not fit, a text that is none, in columns that are masked and that are not.
    pg_database.execute(f"update t set pad = '{TEXT}'")
    masked = {"cast": {"who": "int32", "num": "int32"}, "exclude": ["pad"]}
    broken = {"cast": {"pad": "int32"}}
    for number, columns in enumerate([masked, broken]):
        bad = spec(
            pg_database, lake, f"bad{number}", mask, columns=columns, split={"strategy": "none"}
        )
        if columns is masked and mask != "hash":
            shown.append(
                run_extract(bad.model_copy(update={"on_schema_change": "evolve"})).to_json()
            )
            continue
        with pytest.raises(ExtractError) as caught:
            run_extract(bad)
        shown += traceback.format_exception(caught.value)
    shown += [caplog.text]
    assert [n for n in NEEDLES if n in "".join(shown).encode()] == []
    assert traces(tmp_path) == []


@pytest.mark.parametrize(
    "engine", ["processes", pytest.param("spark", marks=[pytest.mark.spark, pytest.mark.any_spark])]
)
def test_killed_before_its_commit(
    pg_database: Server, lake: Lake, tmp_path: Path, engine: str
) -> None:
    fill(pg_database, 400)
    file = tmp_path / "spec.json"
    masks = {"who": "hash", "num": "redact", "raw": "null", "place": "hash"}
    one = spec(
        pg_database, lake, "killed", "hash", columns={"mask": masks}, split={"target_bytes": 2**16},
        engine=engine,
    )  # fmt: skip
    file.write_text(one.model_dump_json())
    work = tmp_path / "work"
    work.mkdir()
    environment = os.environ | {
        "JAVA_HOME": str(bundled_java_home()),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        **QUICK_JAVA_ENVIRONMENT,
    }
    done = subprocess.run(
        [sys.executable, "-c", KILLED, file, work],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
    )
    (work / "said").write_bytes(done.stdout + done.stderr)
    assert done.returncode == 9, done.stderr.decode()[-3000:]
    assert len([p for p in Path(lake.target).rglob("*") if p.is_file()]) > 1  # staged, and left
    found = any(p.name.startswith(("local-", "app-", "eventlog")) for p in work.iterdir())
    assert found == (engine == "spark")
    assert traces(tmp_path) == []

"""`extract-jobs verify` finds whatever has happened to a table's files, and changes nothing."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from extract_jobs.cli import main
from tests.support.sqlite_source import write

CONFIG = """\
version: 1
source: {name: shop, type: sqlite, connection: {path: shop.db}}
defaults: {target: {uri: "out/{table}"}}
tables:
  t: {target: {partition_by: [kind]}}
  v: {mode: incremental, watermark: {column: id}}
"""
Cli = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Cli]:
    """Two tables that were extracted; the result of a command is its code and what it printed."""
    for name in "tv":
        rows(tmp_path, name, 1, 40)
    (tmp_path / "shop.yml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        code = main(list(arguments))
        told = capsys.readouterr()
        return code, told.out.splitlines(), told.err.splitlines()

    assert run("run", "shop.yml")[0] == 0
    yield run
    logging.getLogger("extract_jobs").setLevel(logging.NOTSET)


def rows(folder: Path, table: str, first: int, last: int) -> None:
    write(
        folder / "shop.db",
        f"create table if not exists {table} (id integer primary key, kind text)",
        f"with recursive n(i) as (select {first} union all select i + 1 from n where i < {last}) "
        f"insert into {table} select i, 'k' || (i % 2) from n",
    )


def files(folder: Path) -> list[Path]:
    return sorted((folder / "out").glob("[tv]/**/*.parquet"))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_files_as_they_were_committed(cli: Cli, tmp_path: Path) -> None:
    before = everything(tmp_path)
    code, stdout, stderr = cli("verify", "shop.yml", "--deep")
    assert (code, stderr) == (0, [])
    assert [line.rsplit(",", 1)[0] for line in stdout[::2]] == [
        "t: commit 1, 2 files, 40 rows",
        "v: commit 1, 1 file, 40 rows",
    ]
    assert all(line.endswith("B: as committed") for line in stdout[::2])
    assert stdout[1::2] == [
        "  the source has 40 rows now, as the last commit",
        "  the source has 40 rows up to the watermark, as the files",
    ]
    assert everything(tmp_path) == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def overwrite_footer(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-8] + b"\xff" * 4 + data[-4:])


def resized(data: bytes, size: int) -> bytes:
    """Return a Parquet file's bytes with room between its pages and its footer."""
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    assert size >= len(data)
    return data[:end] + bytes(size - len(data)) + data[end:]


def replace_by_other_rows(path: Path) -> None:
    size, table = path.stat().st_size, pq.read_table(path, partitioning=None)
    pq.write_table(table.select(["id"]).slice(0, 3), path, store_schema=False)
    path.write_bytes(resized(path.read_bytes(), size))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (Path.unlink, "is missing, with 20 rows"),
        (cut, "bytes, but "),
        (overwrite_footer, "is damaged: its footer cannot be read as Parquet"),
        (replace_by_other_rows, "has 3 rows, but 20 were committed"),
    ],
)
def test_a_file_that_is_not_as_committed(
    cli: Cli, tmp_path: Path, damage: Callable[[Path], None], told: str
) -> None:
    path = files(tmp_path)[0]
    damage(path)
    code, stdout, stderr = cli("verify", "shop.yml")
    assert code == 1
    assert stdout[0].endswith(": 1 fault")
    assert stdout[1].startswith(f"  {path} ")
    assert told in stdout[1]
    assert stdout[2].endswith("as committed"), "the other table"
    assert stderr == ["FilesDamaged: 1 of 2 tables failed"]
    assert cli("verify", "shop.yml", "t")[2] == ["FilesDamaged: t: files differ from the commits"]


def test_files_that_no_commit_wrote(cli: Cli, tmp_path: Path) -> None:
    own = files(tmp_path)[-1]
    for name in ("copy.parquet", "_copy.parquet", "_SUCCESS", ".crc/x.crc", "notes.txt"):
        copy = own.parent / name
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(own, copy)
    code, stdout, _ = cli("verify", "shop.yml", "v")
    assert code == 1
    assert [line.split()[0].rsplit("/", 1)[-1] for line in stdout[1:]] == [
        "_copy.parquet", "copy.parquet", "notes.txt",
    ]  # fmt: skip
    assert "belongs to no live commit" in stdout[1]


def test_two_files_that_were_exchanged(cli: Cli, tmp_path: Path) -> None:
    """Sizes, rows and pages are right: only the run in the footer tells."""
    before = files(tmp_path)[0].read_bytes()
    assert cli("run", "shop.yml", "t", "--run-id", "a-run-with-a-much-longer-name")[0] == 0
    path = files(tmp_path)[0]
    path.write_bytes(resized(before, path.stat().st_size))
    code, stdout, _ = cli("verify", "shop.yml", "t", "--deep")
    assert code == 1
    assert stdout[1].endswith("was replaced by a file of another run")


def test_a_page_that_was_altered_is_found_by_reading_all(cli: Cli, tmp_path: Path) -> None:
    path = files(tmp_path)[-1]
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    at = column.data_page_offset + column.total_compressed_size - 3
    data[at] ^= 0xFF
    path.write_bytes(data)
    assert cli("verify", "shop.yml", "v")[0] == 0
    code, stdout, _ = cli("verify", "shop.yml", "v", "--deep")
    assert code == 1
    assert "is damaged: one of its pages cannot be read as Parquet" in stdout[1]


def test_rows_that_the_watermark_has_passed_are_found_in_the_source(
    cli: Cli, tmp_path: Path
) -> None:
    rows(tmp_path, "v", 101, 110)
    assert cli("run", "shop.yml", "v")[0] == 0
    rows(tmp_path, "v", 50, 52)
    rows(tmp_path, "v", 200, 300)  # above the watermark: the next run's
    code, stdout, _ = cli("verify", "shop.yml", "v", "--deep")
    assert code == 1
    assert "the source has 53 rows up to the watermark, 3 more than the files" in stdout[1]
    write(tmp_path / "shop.db", "delete from v where id < 10")
    code, stdout, _ = cli("verify", "shop.yml", "v", "--deep")
    assert code == 0
    assert "the files keep those that changed or were deleted" in stdout[1]


def test_a_commit_that_is_being_published_is_no_damage(cli: Cli, tmp_path: Path) -> None:
    """Its files, and those that it retires, may be there or not."""
    state = tmp_path / "out" / "_extract" / "shop" / "t"
    retired = files(tmp_path)[0]
    assert cli("run", "shop.yml", "t")[0] == 0
    assert not retired.exists()
    (state / "outcomes" / f"{2:020d}.json").unlink()
    code, stdout, _ = cli("verify", "shop.yml", "t")
    assert code == 0, stdout
    assert stdout[0].startswith("t: commit 1, 2 files")
    assert stdout[1].startswith("  commit 2 has no outcome yet")


def test_a_damaged_log_is_an_error_of_only_its_table(cli: Cli, tmp_path: Path) -> None:
    record = tmp_path / "out" / "_extract" / "shop" / "t" / "commits" / f"{1:020d}.json"
    record.write_text(json.dumps({"version": 1}))
    code, stdout, stderr = cli("verify", "shop.yml")
    assert code == 78
    assert stdout[0].startswith("v: ")
    assert stderr[0].startswith("t: ConfigError: ")


def test_nothing_is_committed_yet(cli: Cli, tmp_path: Path) -> None:
    code, stdout, _ = cli("verify", "shop.yml", "t", "--target", "elsewhere", "--deep")
    assert (code, stdout) == (0, ["t: nothing is committed yet"])
    stray = tmp_path / "elsewhere" / "shop" / "public" / "t" / "x.parquet"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"rows")
    code, stdout, _ = cli("verify", "shop.yml", "t", "--target", "elsewhere")
    assert code == 1
    assert stdout[0] == "t: nothing is committed yet: 1 fault"

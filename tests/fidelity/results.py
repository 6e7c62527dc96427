"""The verdicts of one tool on one database's table, and their file."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fidelity.judge import Stored, Verdict, judge, values_of
from tests.fidelity.peer import Extracted
from tests.fidelity.tables import Case, Torture

SHOWN = 44
"""Characters of a value or a message that the page shows."""


@dataclass
class Column:
    """A column's verdicts, row by row.

    Attributes:
        type: As it was declared.
        verdicts: By row, as their values.
        arrow: The type that it arrived as.
        detail: The first wrong value beside the printed one, or the reason for having none.
    """

    type: str
    verdicts: list[str]
    arrow: str = ""
    detail: str = ""

    @property
    def worst(self) -> Verdict:
        """The worst of the verdicts."""
        return max((Verdict(v) for v in self.verdicts), key=lambda verdict: verdict.rank)

    def count(self, verdict: Verdict) -> int:
        """Return how many values have a verdict."""
        return self.verdicts.count(verdict)


@dataclass
class Result:
    """What one tool made of one table."""

    database: str
    server: str
    peer: str
    version: str
    day: str
    columns: dict[str, Column] = field(default_factory=dict)

    @property
    def total(self) -> Counter[Verdict]:
        """The number of columns by their worst verdict."""
        return Counter(column.worst for column in self.columns.values())

    def save(self, folder: Path) -> None:
        """Write it below a folder, in place of an earlier one."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.database}.{self.peer}.json"
        path.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), "utf-8")


def load(path: Path) -> Result:
    """Read a result's file."""
    found = json.loads(path.read_text("utf-8"))
    columns = {name: Column(**column) for name, column in found.pop("columns").items()}
    return Result(**found, columns=columns)


def judge_columns(table: Torture, extracted: dict[str, Extracted]) -> dict[str, Column]:
    """Judge every column of a table that has an entry."""
    cases = [case for case in table.cases if case.column in extracted]
    return {case.column: judge_column(table, case, extracted[case.column]) for case in cases}


def judge_column(table: Torture, case: Case, extracted: Extracted) -> Column:
    """Judge one column by the files that it is in, or by their absence."""
    without = Verdict.CRASHED if extracted.crashed else Verdict.REFUSED
    if extracted.folder is None:
        verdicts = [str(without if text is not None else Verdict.EQUAL) for text in case.printed]
        if case.printed and all(text is None for text in case.printed):
            verdicts = [str(without)] * len(case.printed)
        return Column(
            case.type, verdicts, detail=shown(extracted.crashed or extracted.refused, 160)
        )
    try:
        found = read_column(extracted.folder, table.key, case.column)
    except (pa.ArrowException, OSError) as error:
        verdicts = [str(Verdict.REFUSED)] * len(case.printed)
        return Column(case.type, verdicts, detail=shown(f"Arrow refuses the file: {error}"))
    kind = found.field(1).type
    keys = found.column(0).cast(pa.int64()).to_pylist()
    values = dict(zip(keys, values_of(found.column(1)), strict=True))
    wanted = range(table.first, table.first + table.rows)
    missing = object()
    verdicts, detail = [], ""
    wires = case.wire or [None] * table.rows
    for key, text, wire in zip(wanted, case.printed, wires, strict=True):
        value = values.get(key, missing)
        verdict = Verdict.WRONG if value is missing else judge(text, case.family, value, kind, wire)
        verdicts.append(str(verdict))
        if verdict is Verdict.WRONG and not detail:
            found_text = "no row" if value is missing else shown(value)
            detail = f"{shown(text)} became {found_text}"
    if len(keys) != len(wanted):
        detail = f"{len(keys)} rows for {len(wanted)}; {detail}"
        verdicts = [str(Verdict.WRONG)] * len(verdicts)
    return Column(case.type, verdicts, _short_type(kind), detail)


def read_column(folder: Path, key: str, column: str) -> pa.Table:
    """Read the key and a column of all Parquet files below a folder; a column may be missing.

    Files in folders of the tool's own bookkeeping, which begin with an underscore, are left out.
    """
    tables = []
    for path in sorted(folder.rglob("*.parquet")):
        if any(part.startswith(("_", ".")) for part in path.relative_to(folder).parts):
            continue
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if key in names:
                tables.append(_selected(file.read([c for c in (key, column) if c in names]), key))
    if not tables:
        raise FileNotFoundError(f"no file has the column {key}")
    named = [table for table in tables if table.num_rows] or tables[:1]
    return pa.concat_tables(named, promote_options="permissive").sort_by(key)


def _selected(table: pa.Table, key: str) -> pa.Table:
    others: Sequence[str] = [name for name in table.column_names if name != key]
    column = table.column(others[0]) if others else pa.nulls(table.num_rows)
    return pa.table({"key": table.column(key), "column": column}).rename_columns([key, "column"])


def _short_type(kind: pa.DataType) -> str:
    if isinstance(kind, pa.OpaqueType):
        return f"opaque {kind.storage_type}"
    return re.sub(r"extension<arrow\.(opaque\[storage_type=)?(\w+)[^<>]*>", r"\2", str(kind))[
        :SHOWN
    ]


def shown(value: object, width: int = SHOWN) -> str:
    """Return a value or message in one short line."""
    if isinstance(value, Stored):
        value = value.text
    text = value if isinstance(value, str) else repr(value)
    if isinstance(value, bytes):
        text = value.decode(errors="backslashreplace")
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return line if len(line) <= width else f"{line[: width - 1]}…"

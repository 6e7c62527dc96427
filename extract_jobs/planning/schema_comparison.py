"""Compares a table's columns with those of its last commit.

There are two questions. What *changed* follows from the source's columns then and now: it is
reported once, and `fail` refuses it. What the files *hold* follows from the existing files: as long
as older files stay, a column keeps its type, its position and its case.

A column never gets a second type, because no pair of types can be read together everywhere: Spark
3.5 cannot read INT32 where other files say INT64, reads INT32 as int8 or int16 by truncating, and
Athena reads a different type in Parquet only in separate partitions. So values are cast to the
older files' type if that loses nothing, and rejected otherwise. The matrix of readers and types is
in tests/spark/test_files_together.py.
https://docs.aws.amazon.com/athena/latest/ug/updates-changing-column-type.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from extract_jobs.commit.record import Commit
from extract_jobs.errors import SchemaChanged
from extract_jobs.reporting.report import ChangeKind, SchemaChange
from extract_jobs.schema import Column
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.parts import SchemaChangeSpec, SchemaPolicy
from extract_jobs.transform.casts import can_keep, is_wider
from extract_jobs.transform.columns import AUDIT_FIELDS, clashes, partition_fields
from extract_jobs.transform.types import kind, printed_type

AUDIT_NAMES = frozenset(f.name for f in AUDIT_FIELDS)
"""Columns that are in every file and do not come from the source."""

_MAX_NAMES = 20


@dataclass(frozen=True)
class Drift:
    """How the table's columns have changed since its last commit.

    Attributes:
        columns: Those to read, without the ones that the policy leaves out.
        layout: Columns of the files in order, without the audit columns.
        source: The source's columns, as the commit keeps them.
        changes: What changed, and its effect on the files.
        refused: One sentence per change that is not allowed; empty if the run may continue.
    """

    columns: tuple[Column, ...]
    layout: pa.Schema
    source: list[dict[str, Any]]
    changes: tuple[SchemaChange, ...] = ()
    refused: tuple[str, ...] = ()

    def check(self, spec: ExtractSpec, last: Commit | None) -> None:
        """Refuse the run if anything is refused.

        Raises:
            SchemaChanged: Names every refused change and what to do.
        """
        if self.refused and last is not None:
            files = (
                "; declare the types in files.types to learn the file and line of invalid values"
                if spec.files is not None and spec.files.types is None
                else ""
            )
            raise SchemaChanged(
                f"{spec.extract_table}: {'; '.join(self.refused)}, since commit {last.seq}. "
                "Nothing was written. Accept it with on_schema_change if that refuses it; give a "
                "column its old type or name with columns.cast and columns.rename, replace the "
                "table with mode full and write_mode overwrite, or start over with another "
                f"state_uri and target{files}"
            )


@dataclass
class Comparison:
    """A comparison in progress.

    Attributes:
        spec: Its ``on_schema_change`` and ``target.write_mode`` decide.
        last: The last published commit.
        columns: The chosen ones.
        source: The same, as the commit keeps them.
        wanted: What the files would hold if there were no older files.
        changes: Changes found so far.
        refused: Changes that are not allowed, so far.
    """

    spec: ExtractSpec
    last: Commit
    columns: tuple[Column, ...]
    source: list[dict[str, Any]]
    wanted: pa.Schema
    changes: list[SchemaChange] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Index the last commit's columns."""
        policies = self.spec.on_schema_change
        if not isinstance(policies, SchemaChangeSpec):
            policies = SchemaChangeSpec.model_validate(
                dict.fromkeys(SchemaChangeSpec.model_fields, policies)
            )
        self.policies = policies
        self.beside = self.spec.target.write_mode != "overwrite"
        self.folders = {f.name for f in partition_fields(self.spec)}
        schema = [c for c in self.last.schema if c["name"] not in AUDIT_NAMES]
        live = {n: t for n, t in self.last.columns.items() if n not in AUDIT_NAMES}
        self.older = {c["name"]: c["type"] for c in schema} | (live if self.beside else {})
        """Type by name of the files' columns: of all files that stay, or of the last commit's."""
        before = self.last.source_columns or schema
        self.before = {c["name"]: c for c in before}
        self.was = {
            name: column
            for name, column in self.before.items()
            if name not in self.folders and "folder" not in column
        }
        self.now = {c["name"]: c for c in self.source if "folder" not in c}

    def drift(self) -> Drift:
        """Run the comparison."""
        types = dict(self._kept()) | dict(self._filled())
        self._nullability()
        self._masks()
        self._folders()
        names = self._ordered(types)
        all_names = [*self.older, *names] if self.beside else names
        self.refused += clashes([*sorted(self.folders), *all_names])
        rename = self.spec.columns.rename
        left_out = set(self.now) - set(types)
        return Drift(
            columns=tuple(c for c in self.columns if rename.get(c.name, c.name) not in left_out),
            layout=pa.schema([(name, types[name]) for name in names]),
            source=self.source,
            changes=tuple(self.changes),
            refused=tuple(dict.fromkeys(self.refused)),
        )

    def _add_change(
        self, kind: ChangeKind, column: str | None, before: Any, after: Any, effect: str
    ) -> None:
        """Report a change, and refuse it if its policy is ``fail``."""
        change = SchemaChange(kind=kind, column=column, before=before, after=after, effect=effect)
        self.changes.append(change)
        if kind != "masked" and self._policy(kind) == "fail":
            self.refused.append(f"{change.difference}, and on_schema_change.{kind} is fail")

    def _policy(self, kind: ChangeKind) -> SchemaPolicy:
        found: SchemaPolicy = getattr(self.policies, kind)
        return found

    def _kept(self) -> Iterator[tuple[str, pa.DataType]]:
        """Yield name and file type of the source's columns, without those left out."""
        needed = self._needed()
        for name in self.now:
            data_type = self.wanted.field(name).type
            is_new = name not in self.was
            if name in self.older:
                if is_new:
                    self._add_change("added", name, None, str(data_type), "extracted again")
                yield name, self._type(name, data_type)
            elif name in self.last.partition_by:
                yield name, data_type  # it was a folder
            elif self._policy("added") == "evolve":
                self._add_change("added", name, None, str(data_type), "extracted")
                yield name, data_type
            else:
                if is_new:
                    self._add_change("added", name, None, str(data_type), "not extracted")
                if name in needed:
                    self.refused.append(
                        f"column {name} is left out by on_schema_change.added, but {needed[name]} "
                        "names it"
                    )
                    yield name, data_type  # what needs it is built before `check`

    def _needed(self) -> dict[str, str]:
        """Return which columns the spec needs: by name in the files, the key that names each."""
        spec = self.spec
        found = {f.column: "target.partition_by" for f in partition_fields(spec)}
        found |= dict.fromkeys(spec.columns.key, "columns.key")
        if spec.watermark:
            found[spec.watermark.column] = "watermark.column"
        rename = spec.columns.rename
        return {rename.get(name, name): where for name, where in found.items() if name}

    def _type(self, name: str, data_type: pa.DataType) -> pa.DataType:
        """Return the file type of a column that the files already have."""
        now, old = str(data_type), self.older[name]
        was = self.was.get(name, {}).get("type", old)
        if now == old == was:
            return data_type
        changed = now != was
        kind = _kind(printed_type(was if changed else old), data_type)
        if now == old:
            self._add_change(kind, name, was, now, "as the files have it")
            return data_type
        if not self.beside and self._policy(kind) == "evolve":
            self._add_change(kind, name, was if changed else old, now, f"written as {now}")
            return data_type
        if changed:
            self._add_change(kind, name, was, now, f"written as {old}, where values fit")
        kept = printed_type(old)
        masks = [columns.get(name, {}).get("mask", "") for columns in (self.was, self.now)]
        if kept is None or "hash" in "".join(masks) or not can_keep(data_type, kept):
            self.refused.append(f"column {name} is {old} in older files and now {now}")
        return data_type if kept is None else kept

    def _filled(self) -> Iterator[tuple[str, pa.DataType]]:
        """Yield name and type of columns that stay in the files, filled with NULL."""
        policy = self._policy("dropped")
        fill = self.beside or policy != "evolve"
        for name in dict.fromkeys([*self.was, *self.older]):
            if name in self.now or name in self.folders:
                continue
            known = printed_type(self.older[name]) if name in self.older else None
            if name in self.was:
                effect = "written as NULL" if fill and known is not None else "not written"
                self._add_change("dropped", name, self.was[name]["type"], None, effect)
            if fill and known is not None:
                yield name, known

    def _nullability(self) -> None:
        spelled = {True: "NULL", False: "NOT NULL"}
        for name, column in self.now.items():
            old = self.was.get(name)
            if old and self.last.source_columns and old["nullable"] != column["nullable"]:
                before, after = spelled[old["nullable"]], spelled[column["nullable"]]
                self._add_change("nullability", name, before, after, "files admit NULL either way")

    def _folders(self) -> None:
        for column in self.source:
            name, now = column["name"], column["type"]
            was = self.before.get(name, column)
            if "folder" not in column or "folder" not in was or was["type"] == now:
                continue
            old, new = printed_type(was["type"]), printed_type(now)
            self._add_change(_kind(old, new), name, was["type"], now, "a folder's name")
            if self.beside and not _spelled_alike(old, new):
                self.refused.append(
                    f"partition column {name} was {was['type']} and is now {now}, so one value "
                    "would have two folder names"
                )

    def _masks(self) -> None:
        for column in self.source:
            name = column["name"]
            old = self.before.get(name)
            before, after = (old or column).get("mask"), column.get("mask")
            unknown = _differ_in_key(before, after)  # a preview has none
            if before != after and not unknown:
                effect = "older files keep what they hold" if self.beside else "all is replaced"
                self._add_change("masked", name, before or "no mask", after or "no mask", effect)
                if where := self._recognizing().get(name):
                    self.refused.append(
                        f"column {name} has a new mask or mask key, so {where} would not recognize "
                        "existing rows"
                    )

    def _recognizing(self) -> dict[str, str]:
        """Return by name in the files which key of the spec recognizes rows by that column."""
        spec, found = self.spec, dict[str, str]()
        if spec.target.write_mode == "overwrite_partitions":
            found = {f.column: "target.partition_by" for f in partition_fields(spec) if f.column}
        elif self.beside and spec.watermark and spec.watermark.duplicates == "refuse":
            found = dict.fromkeys(spec.columns.key, "columns.key")
        return {spec.columns.rename.get(name, name): where for name, where in found.items()}

    def _ordered(self, types: Mapping[str, pa.DataType]) -> list[str]:
        """Return the files' columns in order; older ones keep their positions."""
        both = [name for name in self.now if name in self.was]
        before = [name for name in self.was if name in self.now]
        keeps = self.beside or self._policy("reordered") != "evolve"
        if both != before:
            effect = "files keep the order that they had" if keeps else "files have the new order"
            was, now = _moved(before, both)
            self._add_change("reordered", None, was, now, effect)
        first = [name for name in self.older if name in types] if keeps else list(self.now)
        return [n for n in dict.fromkeys([*first, *self.now, *types]) if n in types]


def _differ_in_key(before: str | None, after: str | None) -> bool:
    """Return whether two masks differ only in the key, which one of them does not show."""
    shown = [" with key " in (mask or "") for mask in (before, after)]
    plain = [re.sub(r" with key \w+", "", mask or "") for mask in (before, after)]
    return plain[0] == plain[1] and not all(shown)


def _kind(before: pa.DataType | None, after: pa.DataType | None) -> ChangeKind:
    known = before is not None and after is not None
    return "widened" if known and is_wider(after, before) else "narrowed"


def _moved(before: Sequence[str], after: Sequence[str]) -> tuple[str, str]:
    """Return two orders of the same names, without their common ends, and shortened.

    Otherwise the report of a very wide table would be all names.
    """
    differs = [i for i, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
    span = slice(differs[0], differs[-1] + 1)
    both = [list(names[span]) for names in (before, after)]
    was, now = (", ".join([*n[:_MAX_NAMES], *["…"][: len(n) > _MAX_NAMES]]) for n in both)
    return was, now


def _spelled_alike(before: pa.DataType | None, after: pa.DataType | None) -> bool:
    """Return whether folders have the same names for values of either type."""
    if before is None or after is None:
        return False
    kinds = {kind(before), kind(after)}
    if kinds == {"decimal"}:
        return bool(before.scale == after.scale)
    return kinds <= {"integer", "string", "boolean", "date"}

"""Compares a table's columns with those of its last commit.

There are two questions. What *changed* follows from the source's columns then and now: it is
reported once, and `fail` refuses it. What the files *hold* follows from the existing files: as long
as older files stay, a column keeps its type, its position and its case.

In a folder of Parquet files, a column does not get a second type unless ``widened: new_files`` asks
for it, because no pair of types can be read together everywhere: Spark 3.5 cannot read INT32 where
other files say INT64, reads INT32 as int8 or int16 by truncating, and Athena reads a different type
in Parquet only in separate partitions. So values are cast to the older files' type if that loses
nothing, and rejected otherwise. Structs are compared field by field, by the same rules. The matrix
of readers and types is in tests/spark/test_files_together.py.
https://docs.aws.amazon.com/athena/latest/ug/updates-changing-column-type.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from extract_jobs.commit.record import Commit
from extract_jobs.errors import SchemaChanged
from extract_jobs.planning.field_comparison import (
    Changes,
    Fields,
    kind_of_change,
    spelled_alike,
)
from extract_jobs.reporting.report import SchemaChange
from extract_jobs.schema import Column
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.parts import SchemaChangeSpec
from extract_jobs.transform.columns import audit_fields, clashes, partition_fields


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
                f"{spec.extract_table}: since commit {last.seq}: {'; '.join(self.refused)}. "
                "Nothing was written. If on_schema_change refuses the change, you can allow it "
                "there. Otherwise restore the column's old type or name with columns.cast or "
                "columns.rename, replace the table with mode full and write_mode overwrite, or "
                f"start over with another state_uri and target{files}"
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
    """

    spec: ExtractSpec
    last: Commit
    columns: tuple[Column, ...]
    source: list[dict[str, Any]]
    wanted: pa.Schema

    def __post_init__(self) -> None:
        """Index the last commit's columns."""
        policies = self.spec.on_schema_change
        if not isinstance(policies, SchemaChangeSpec):
            policies = SchemaChangeSpec.model_validate(
                dict.fromkeys(SchemaChangeSpec.model_fields, policies)
            )
        iceberg = self.spec.target.is_iceberg
        beside = self.spec.target.write_mode != "overwrite"
        self.changes = Changes(policies, beside, promotes=iceberg)
        self.beside = self.changes.beside
        self.folders = set() if iceberg else {f.name for f in partition_fields(self.spec)}
        audit = audit_names(self.spec)
        schema = [c for c in self.last.schema if c["name"] not in audit]
        live = {n: t for n, t in self.last.columns.items() if n not in audit}
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
        wanted = {name: self.wanted.field(name).type for name in self.now}
        masks = [(n, c.get("mask", "")) for n, c in (*self.was.items(), *self.now.items())]
        types = Fields(
            self.changes,
            was={name: column["type"] for name, column in self.was.items()},
            now=wanted,
            older=self.older,
            hashed=frozenset(name for name, mask in masks if "hash" in mask),
            needed=self._needed(),
            moved_in=frozenset(self.last.partition_by),
            in_path=frozenset(self.folders),
        ).compared()
        self._nullability()
        self._masks()
        self._folders()
        all_names = [*self.older, *types] if self.beside else list(types)
        refused = [*self.changes.refused, *clashes([*sorted(self.folders), *all_names])]
        rename = self.spec.columns.rename
        left_out = set(self.now) - set(types)
        return Drift(
            columns=tuple(c for c in self.columns if rename.get(c.name, c.name) not in left_out),
            layout=pa.schema(list(types.items())),
            source=self.source,
            changes=tuple(self.changes.found),
            refused=tuple(dict.fromkeys(refused)),
        )

    def _needed(self) -> dict[str, str]:
        """Return which columns the spec needs: by name in the files, the key that names each."""
        spec = self.spec
        found = {f.column: "target.partition_by" for f in partition_fields(spec)}
        found |= dict.fromkeys(spec.columns.key, "columns.key")
        if spec.watermark:
            found[spec.watermark.column] = "watermark.column"
        rename = spec.columns.rename
        return {rename.get(name, name): where for name, where in found.items() if name}

    def _nullability(self) -> None:
        spelled = {True: "NULL", False: "NOT NULL"}
        for name, column in self.now.items():
            old = self.was.get(name)
            if old and self.last.source_columns and old["nullable"] != column["nullable"]:
                before, after = spelled[old["nullable"]], spelled[column["nullable"]]
                self.changes.add("nullability", name, before, after, "files admit NULL either way")

    def _folders(self) -> None:
        for column in self.source:
            name, now = column["name"], column["type"]
            was = self.before.get(name, column)
            if "folder" not in column or "folder" not in was or was["type"] == now:
                continue
            old = was["type"]
            self.changes.add(kind_of_change(old, now), name, old, now, "a folder's name")
            if self.beside and not spelled_alike(old, now):
                self.changes.refused.append(
                    f"partition column {name} was {old} and is now {now}, so one value "
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
                self.changes.add("masked", name, before or "no mask", after or "no mask", effect)
                if where := self._recognizing().get(name):
                    self.changes.refused.append(
                        f"column {name} has a new mask or mask key, so {where} would not recognize "
                        "existing rows"
                    )

    def _recognizing(self) -> dict[str, str]:
        """Return by name in the files which key of the spec recognizes rows by that column."""
        spec, found = self.spec, dict[str, str]()
        if spec.target.write_mode == "overwrite_partitions":
            found = {f.column: "target.partition_by" for f in partition_fields(spec) if f.column}
        elif spec.target.merges or (
            self.beside and spec.watermark and spec.watermark.duplicates == "refuse"
        ):
            found = dict.fromkeys(spec.columns.key, "columns.key")
        return {spec.columns.rename.get(name, name): where for name, where in found.items()}


def audit_names(spec: ExtractSpec) -> frozenset[str]:
    """Return the columns that are in every file and do not come from the source."""
    return frozenset(f.name for f in audit_fields(spec))


def _differ_in_key(before: str | None, after: str | None) -> bool:
    """Return whether two masks differ only in the key, which one of them does not show."""
    shown = [" with key " in (mask or "") for mask in (before, after)]
    plain = [re.sub(r" with key \w+", "", mask or "") for mask in (before, after)]
    return plain[0] == plain[1] and not all(shown)

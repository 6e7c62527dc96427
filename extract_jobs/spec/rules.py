"""Rules between the parts of a spec: what would destroy or double data is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator
from itertools import takewhile
from typing import TYPE_CHECKING
from urllib.parse import quote

from extract_jobs.spec.source_types import registration
from extract_jobs.spec.uris import is_inside, normal_uri

if TYPE_CHECKING:
    from extract_jobs.spec.extract_spec import ExtractSpec, WatermarkSpec

PARTITION_FUNCTIONS = ("year", "month", "day", "hour")
RUN_PARTITIONS = ("extract_date", "run_id")


def default_write_mode(mode: str, partition_by: Container[str]) -> str:
    """Return the write mode of a table that gives none."""
    if mode == "incremental":
        return "append"
    by_run = any(name in partition_by for name in RUN_PARTITIONS)
    return "overwrite_partitions" if by_run else "overwrite"


def mode_problems(spec: ExtractSpec) -> Iterator[str]:
    """Yield what would destroy or double data, and what a person would wrongly rely on."""
    mode, target, key, watermark = spec.mode, spec.target, spec.columns.key, spec.watermark
    column = watermark.column if watermark else None
    if spec.source_type == "files" or spec.files is not None:
        yield from _files_problems(spec)
    elif spec.where is not None and registration(spec.source_type).where is None:
        yield f"where is not for sources of type {spec.source_type}"
    elif watermark and watermark.snapshot:
        yield from _snapshot_problems(spec, watermark)
    elif mode == "incremental" and not column:
        yield "mode incremental needs watermark.column"
    if mode == "incremental" and target.write_mode == "overwrite":
        yield "write_mode overwrite needs mode full: an increment would replace the whole table"
    if mode == "full" and watermark and (watermark.lower, watermark.upper) != (None, None):
        yield "watermark.lower and upper need mode incremental: in mode full all rows would come"
    yield from _split_problems(spec)
    if mode == "incremental" and column in spec.columns.mask:
        yield (
            f"watermark.column {column} is masked, but its greatest value is kept in the commit "
            "log and shown in reports: order rows by a column that is not masked"
        )
    if target.write_mode == "overwrite_partitions":
        yield from _replacing_problems(spec, column)
    if mode == "full" or watermark is None or target.write_mode != "append":
        return
    if watermark.lag and not key and watermark.duplicates == "refuse":
        yield (
            "watermark.lag with write_mode append reads rows again: name their key "
            "in columns.key, or accept duplicates with watermark.duplicates: accept"
        )


def _split_problems(spec: ExtractSpec) -> Iterator[str]:
    if spec.split.column in spec.columns.mask:
        yield (
            f"split.column {spec.split.column} is masked, but statements would show where it is cut"
        )
    if spec.split.one_snapshot != "auto" and spec.source_type != "mysql":
        yield (
            "split.one_snapshot is for sources of type mysql: splits of postgres and sqlite always "
            "share a snapshot, those of others never do"
        )


def catalog_problems(spec: ExtractSpec) -> Iterator[str]:
    """Yield the names of a spec that the Glue Data Catalog or Athena cannot have."""
    catalog = spec.target.catalog
    if catalog is None:
        return
    for kind, name in (("database", catalog.database), ("table", catalog.table)):
        if not re.fullmatch(r"[a-z0-9_]{1,255}", name):
            yield (
                f"target.catalog.{kind} {name!r} is no name that Athena takes: lower-case letters, "
                "digits and _ alone"
            )
    for column, name in spec.columns.rename.items():
        if not re.fullmatch(r"[A-Za-z0-9_]{1,255}", name):
            yield (
                f"columns.rename.{column} {name!r} is no name that the catalog takes: letters, "
                "digits and _ alone"
            )


def _files_problems(spec: ExtractSpec) -> Iterator[str]:
    if spec.source_type != "files":
        yield f"files is for sources of type files, and this one is of type {spec.source_type}"
        return
    if spec.files is None:
        yield "a source of type files needs files.glob for each table"
    elif spec.files.encoding.lower() != "utf-8" and spec.files.format == "parquet":
        yield "files.encoding is for text, not for Parquet"
    if spec.connection.uri is None:
        yield "a source of type files needs connection.uri, the folder that globs start from"
    elif spec.files is not None:
        for name in ("target.uri", "state_uri", "report_uri"):
            place = spec.target.uri if name == "target.uri" else getattr(spec, name)
            if finds(spec.connection.uri, spec.files.glob, place):
                yield (
                    f"files.glob {spec.files.glob} may find what is written to {name}, {place}: "
                    "narrow it, or write elsewhere"
                )
    if spec.watermark is not None:
        yield (
            "watermark is not for files: mode incremental extracts the files that are new or were "
            "replaced, whatever is in them"
        )
    if spec.query is not None or spec.where is not None:
        yield "query and where are not for files, which no server reads: all rows are extracted"
    if spec.mode == "incremental" and spec.target.write_mode == "overwrite_partitions":
        yield (
            "write_mode overwrite_partitions needs mode full for files: a partition may hold rows "
            "of files that were read before, which would be lost"
        )


def finds(uri: str, glob: str, place: str) -> bool:
    """Return whether a glob below a folder looks into a place, names aside that are hidden from it.

    Args:
        uri: The folder that the glob starts from, in any form.
        glob: As in ``files.glob``.
        place: A folder, in any form.
    """
    *folders, last = glob.lstrip("/").split("/")
    spelled = list(takewhile(lambda name: not re.search(r"[*?]", name), folders))
    root = normal_uri("/".join([uri.rstrip("/"), *map(_as_in(uri), spelled)]))
    if is_inside(root, place):
        return True
    if not is_inside(place, root):
        return False
    below = normal_uri(place).removeprefix(root.rstrip("/")).strip("/").split("/")
    if any(name.startswith((".", "_")) and "=" not in name for name in below):
        return False
    names = [*folders[len(spelled) :], last]
    for name, wanted in zip(below, names, strict=False):
        if "**" in wanted:
            return True
        if not re.fullmatch(
            _SEGMENT.sub(lambda m: _MEANS.get(m[0]) or re.escape(m[0]), wanted), name
        ):
            return False
    return len(names) > len(below)


_SEGMENT = re.compile(r"[*?]|[^*?]+")
_MEANS = {"*": ".*", "?": "."}


def _as_in(uri: str) -> Callable[[str], str]:
    """Return how names below a place are spelled: such URIs of files are decoded when used."""
    return (lambda name: quote(name, safe="")) if uri.startswith("file://") else (lambda name: name)


def _snapshot_problems(spec: ExtractSpec, watermark: WatermarkSpec) -> Iterator[str]:
    names = ("column", "lag", "delay", "initial", "lower", "upper")
    given = [f"watermark.{name}" for name in names if getattr(watermark, name) is not None]
    if given:
        yield (
            f"watermark.snapshot goes without {', '.join(given)}: its bounds are those of the "
            "source's own transactions"
        )
    if spec.query is not None:
        yield "watermark.snapshot needs a table: rows of a query do not record their transaction"
    if spec.connection.pooled:
        yield (
            "watermark.snapshot cannot work behind a pooler, which may answer from another node: "
            "connect to the primary itself, without connection.pooled"
        )
    if spec.target.write_mode == "overwrite_partitions":
        yield (
            "watermark.snapshot needs write_mode append, or overwrite with mode full: the rows of "
            "its interval are parts of any partition"
        )


def _replacing_problems(spec: ExtractSpec, column: str | None) -> Iterator[str]:
    if not spec.target.partition_by:
        yield "write_mode overwrite_partitions needs target.partition_by"
    elif spec.mode == "incremental" and column is not None:
        if not any(derives_from(text, column) for text in spec.target.partition_by):
            yield (
                "write_mode overwrite_partitions in mode incremental needs a partition of the "
                f"watermark column, such as day({column}): other partitions may hold rows outside "
                "the interval, which would be lost"
            )
        if column in spec.columns.cast:
            yield (
                f"write_mode overwrite_partitions in mode incremental needs {column} as it is: "
                "take it out of columns.cast"
            )


def derives_from(partition: str, column: str) -> bool:
    """Return whether a partition is a column's own value, or its year, month, day or hour."""
    if partition in RUN_PARTITIONS:
        return False
    found = re.fullmatch(rf"({'|'.join(PARTITION_FUNCTIONS)})\((.+)\)", partition, re.DOTALL)
    return (found[2].strip() if found else partition) == column

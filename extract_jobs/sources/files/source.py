"""Files as a source: list them, inspect them, split them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cached_property
from itertools import islice

from extract_jobs.errors import ConfigError
from extract_jobs.reporting.report import versions
from extract_jobs.schema import TableDescription
from extract_jobs.sources import READING_VERSION, Features, ObjectsBefore, ReadRequest
from extract_jobs.sources.files.folders import folders_of
from extract_jobs.sources.files.globs import MOST_LISTED, globs_of
from extract_jobs.sources.files.inspected import Inspected, noted
from extract_jobs.sources.files.inspection import Columns, Inspector, headers_of
from extract_jobs.sources.files.listing import (
    Format,
    folder_of,
    format_of,
    list_objects,
)
from extract_jobs.sources.files.objects import KnownObjects, Listed, ObjectList, just_before
from extract_jobs.sources.files.reader import FilesReader
from extract_jobs.sources.files.snapshot import FilesSnapshot, section_bytes
from extract_jobs.sources.files.streams import is_utf8, source_errors
from extract_jobs.sources.files.types import declared_columns, folder_columns, found_columns
from extract_jobs.sources.splits import split_bytes
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.listed_table import ListedTable
from extract_jobs.spec.source import FilesSpec
from extract_jobs.storage import ObjectInfo, OpenStorage, Storage, join, open_storage
from extract_jobs.transform.columns import is_chosen
from extract_jobs.transform.types import JSON
from extract_jobs.watermark import WatermarkValue

logger = logging.getLogger(__name__)

FEATURES = Features(
    reads_by="pyarrow (CSV, Parquet), DuckDB (JSON lines)",
    shared_snapshot=True,
    strategies=("auto", "none"),
    incremental=("objects: new and replaced files",),
    queries=False,
    where=False,
    run_live=("local folders", "S3 on ministack"),
    unverified=("S3 of AWS",),
)
_NAMES = 1000
"""Maximum objects of a folder that are searched for one spelled like a glob without matches."""
_HEADERS = 20
"""Files whose headers are checked for declared columns, spread over the listing."""


@dataclass(frozen=True)
class FilesSource:
    """The files of one table. Meets `extract_jobs.sources.ObjectSource`.

    Attributes:
        spec: What is extracted.
        open_storage: Returns the storage of a URI.
        chosen: The objects to read; None lists them when they are first needed, and reads all.
    """

    spec: ExtractSpec
    open_storage: OpenStorage = open_storage
    chosen: ObjectList | None = None

    @classmethod
    def open(cls, spec: ExtractSpec) -> FilesSource:
        """Return the source of a spec; lists nothing yet.

        Raises:
            ConfigError: The spec requests something that files do not support.
        """
        if spec.split.strategy not in FEATURES.strategies:
            raise ConfigError(
                f"{spec.extract_table}: files do not support split.strategy {spec.split.strategy}; "
                "expected auto or none"
            )
        source = cls(spec)
        is_utf8(source.files.encoding)
        given = source.files
        quote = None if given.quote == "none" else given.quote
        given_marks = (given.delimiter, quote, given.escape, given.comment)
        marks = [mark for mark in given_marks if mark is not None]
        if not all(mark.isascii() and mark not in "\r\n\0" for mark in marks):
            raise ConfigError(
                f"{spec.extract_table}: files.delimiter, quote, escape and comment must be ASCII "
                "characters other than line ends"
            )
        if len(set(marks)) < len(marks):
            raise ConfigError(
                f"{spec.extract_table}: files.delimiter, quote, escape and comment must differ; "
                "without an escape, a quote within quotes is doubled"
            )
        return source

    def tables(self) -> list[ListedTable]:
        """Return a table for each kind of file names. See `extract_jobs.sources.ListingSource`."""
        uri = self.spec.connection.uri or ""
        folder = folder_of(uri)
        with source_errors(f"listing {uri}"):
            objects = list_objects(self.open_storage(uri), folder, "**")
            listed = list(islice(objects, MOST_LISTED))
            if next(objects, None) is not None:
                logger.warning(
                    "%s has more than %d files; the rest were not examined, so tables "
                    "may be missing",
                    uri, MOST_LISTED,
                )  # fmt: skip
        return globs_of([info.uri[len(folder) :] for info in listed])

    # --- which objects ---------------------------------------------------------------------

    def rests_on(self, chosen: bytes) -> str | None:
        """Return the name of the list that this one adds to. See `ObjectSource.rests_on`."""
        return ObjectList.from_bytes(chosen).adds_to

    def choose(self, before: ObjectsBefore | None, now: datetime) -> bytes:
        """List the objects and decide which are read. See `ObjectSource.choose`."""
        return self._choose(before, now).to_bytes()

    def is_current(self, chosen: bytes) -> bool:
        """Return whether all objects to be read are as listed. See `ObjectSource.is_current`."""
        wanted = ObjectList.from_bytes(chosen).etags(read=True)
        first = just_before(min(wanted)) if wanted else None
        there = sum(wanted.get(info.uri) == info.etag for info in self._listing(first))
        return there == len(wanted)

    def at(self, chosen: bytes) -> FilesSource:
        """Return the source of exactly these objects. See `ObjectSource.at`."""
        return replace(self, chosen=ObjectList.from_bytes(chosen))

    def has_nothing_new(self) -> bool:
        """Return whether there is no object to read. See `ObjectSource.has_nothing_new`."""
        return not any(True for _ in self._objects.to_read())

    def _choose(self, before: ObjectsBefore | None, now: datetime) -> ObjectList:
        """Inspect every object that will be read, and no other."""
        if self.spec.reuse != "never" and self.spec.target.write_mode == "overwrite":
            return self._choose_all(before, now)
        read = None if before is None else KnownObjects.of(before)
        only_new = self.spec.mode == "incremental" and read is not None
        known = read.etags() if read and only_new else None
        newest = None
        if read and only_new and self.files.listing == "newest":
            newest = self._newest(read, now)
        listed, new = self._new(known) if newest is None else (None, newest)
        if not new and not only_new:
            raise self._no_object()
        if listed is not None and not listed:
            logger.warning(
                "%s: no object matches %s%s any more, not even those that were read before: check "
                "connection.uri and files.glob, unless they were removed on purpose",
                self.spec.extract_table, self.folder, self.files.glob,
            )  # fmt: skip
        about = dict(read.last.about) if read and only_new else {}
        inspected: list[Listed] = []
        if new:
            form = self._checked_format(new)
            target = split_bytes(self.spec.split, sum(info.size for info in new))
            inspected, columns = self._inspector(form, target).inspect(
                new, Columns.from_json(about)
            )
            about = {"format": form, **columns.to_json()}
        chosen = ObjectList.of(inspected, about, now)
        return read.and_new(chosen, listed, now) if read and new else chosen

    def _new(
        self, known: Mapping[str, str] | None, start_after: str | None = None
    ) -> tuple[set[str], list[ObjectInfo]]:
        """List objects; return their URIs, and those that are not known as they are."""
        listed, new = set[str](), list[ObjectInfo]()
        for info in self._listing(start_after):
            listed.add(info.uri)
            if known is None or known.get(info.uri) != info.etag:
                new.append(info)
        return listed, new

    def _newest(self, read: KnownObjects, now: datetime) -> list[ObjectInfo] | None:
        """Return the new objects among the newest; None if all objects have to be listed."""
        start_after = read.newest_after(0, now)
        if start_after is None:
            return None
        logger.info(
            "%s: listing what comes after %s; all files are listed once a day",
            self.spec.extract_table, start_after,
        )  # fmt: skip
        listed, new = self._new(read.etags(), start_after)
        # If they are gone, so may be all; and a whole list needs all.
        return new if listed and read.newest_after(len(new), now) else None

    def _choose_all(self, before: ObjectsBefore | None, now: datetime) -> ObjectList:
        """Return all objects, of which those are inspected that an earlier run has not seen."""
        listed = list(self._listing())
        if not listed:
            raise self._no_object()
        form, by = self._checked_format(listed), self._inspected_by()
        # A local file's time and size do not prove that it is the same.
        known = Inspected.of(before if "://" in self.folder else None, listed, by)
        new = [info for info in listed if info.uri not in known.objects]
        inspector = self._inspector(form, section_bytes(self.spec))
        inspected, columns = inspector.inspect(new, known.columns)
        found = known.objects | {one.info.uri: one for one in inspected}
        about = {"format": form, **columns.to_json(), "inspected": noted(columns, by)}
        return ObjectList.of([found[info.uri] for info in listed], about, now)

    def _inspected_by(self) -> str:
        """Return a digest of all that inspection depends on besides the objects."""
        fields = self.spec.model_dump(
            mode="json", include={"connection": {"uri"}, "files": True, "columns": True}
        )
        found = {k: v for k, v in versions().items() if k not in ("python", "pyspark")}
        used = [fields, section_bytes(self.spec), found, READING_VERSION]
        return hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()

    def _no_object(self) -> ConfigError:
        return ConfigError(
            f"{self.spec.extract_table}: no object matches {self.folder}{self.files.glob}; "
            f"expected at least one{self._nearest()}. Check connection.uri and files.glob: * "
            "stays within a folder, ** crosses folders, names that begin with _ or . are hidden"
        )

    def _listing(self, start_after: str | None = None) -> Iterator[ObjectInfo]:
        with source_errors(self.folder):
            yield from list_objects(self._storage, self.folder, self.files.glob, start_after)

    def _nearest(self) -> str:
        """Return the first objects of the folder that are spelled like the glob."""
        some = islice(list_objects(self._storage, self.folder, "**"), _NAMES)
        names = [info.uri.removeprefix(self.folder) for info in some]
        near = get_close_matches(self.files.glob, names) or names[:3]
        if not near:
            return ": there are no files in the folder"
        return f" (found {', '.join(map(repr, near))})"

    def _checked_format(self, objects: Sequence[ObjectInfo]) -> Format:
        """Return the format of all objects; the spec's keys for files must suit it."""
        form = self._format(objects)
        self._check_path(form)
        self._check_declared(objects, form)
        return form

    def _format(self, objects: Sequence[ObjectInfo]) -> Format:
        first = format_of(objects[0].uri, self.files.format)
        for info in objects:
            found = format_of(info.uri, self.files.format)
            if found != first:
                raise ConfigError(
                    f"{self.spec.extract_table}: {objects[0].uri} is {first} and {info.uri} is "
                    f"{found}: a table has files of one format. Narrow files.glob"
                )
        return first

    def _check_path(self, form: Format) -> None:
        if self.files.path is not None and form != "json":
            raise ConfigError(
                f"{self.spec.extract_table}: files.path is for files.format json, not for {form}"
            )

    def _inspector(self, form: Format, target: int) -> Inspector:
        as_json = frozenset(name for name, to in self.spec.columns.cast.items() if to == JSON)
        return Inspector(
            self._storage, self.files, form, target, self._is_read, self.folder, as_json
        )

    def _is_read(self, names: Sequence[str]) -> list[str]:
        """Return the columns that are extracted; the types of others do not matter."""
        return [name for name in names if is_chosen(name, self.spec, names)]

    def _check_declared(self, objects: Sequence[ObjectInfo], form: Format) -> None:
        """Refuse declared columns that no header of some files has: they would be all NULL.

        Raises:
            ConfigError: There are some; the message lists the nearest names.
        """
        if self.files.types is None:
            return
        declared_columns(self.files, form)
        if form != "csv" or not self.files.header:
            return
        filled = [info for info in objects if info.size]
        step = max(1, len(filled) // _HEADERS)
        some = dict.fromkeys([*filled[::step], *filled[-1:]])
        found = [h for one in some for h in headers_of(self._storage, self.files, one, form)]
        names = {name for header in found for name in header.names}
        if names and self.files.partitions == "columns":
            names |= {name for info in objects for name in folders_of(info.uri, self.folder)}
        absent = [name for name in self.files.types if name not in names]
        if names and absent:
            near = get_close_matches(absent[0], names, n=3) or sorted(names)[:10]
            raise ConfigError(
                f"{self.spec.extract_table}: files.types names {', '.join(map(repr, absent))}, "
                f"which the headers of {len(found)} files lack; {absent[0]!r} may be meant for "
                f"{', '.join(map(repr, near))}"
            )

    # --- what a source does ----------------------------------------------------------------

    def describe(self) -> TableDescription:
        """Describe the table by all of its files. See `extract_jobs.sources.Source.describe`.

        Raises:
            ConfigError: No object matches, or no file has a column.
            SourceQueryFailed: A file is damaged, or one of its records is not a row.
        """
        objects = self._objects
        form: Format = objects.about["format"]
        known = Columns.from_json(objects.about)
        if self.files.types is not None:
            columns = declared_columns(self.files, form)
        else:
            columns = found_columns(known, form, self.spec.columns.cast)
        if self.files.partitions == "columns":
            named = {column.name for column in columns}
            columns += folder_columns(name for name in known.folders if name not in named)
        if not columns:
            raise ConfigError(
                f"{self.spec.extract_table}: no file that matches {self.folder}{self.files.glob} "
                "has a column: all are empty. Declare the columns in files.types, or wait for data"
            )
        read = list(objects.to_read())
        counts = [one.rows for one in read if one.rows is not None]
        return TableDescription(
            table=self.spec.extract_table,
            kind="files",
            columns=columns,
            key=(),
            estimated_rows=sum(counts) if len(counts) == len(read) else None,
            estimated_bytes=sum(one.info.size for one in read),
            fingerprint={"uri": self.folder},
            source_version=f"{len(read)} {form} files",
        )

    def highest(
        self,
        column: str,
        *,
        lower: WatermarkValue | None = None,
        upper: WatermarkValue | None = None,
        delay: timedelta | None = None,
    ) -> WatermarkValue | None:
        """Raise ConfigError: files have no watermark; new objects count as new rows."""
        del lower, upper, delay
        raise ConfigError(f"{self.spec.extract_table}: files have no watermark such as {column}")

    def precedes(self, column: str, left: WatermarkValue, right: WatermarkValue) -> bool:
        """Raise ConfigError, as `highest` does."""
        del left, right
        raise ConfigError(f"{self.spec.extract_table}: files have no watermark such as {column}")

    def null_watermarks(self, column: str) -> int:
        """Return 0: no row is left out."""
        del column
        return 0

    @contextmanager
    def snapshot(self, request: ReadRequest) -> Iterator[FilesSnapshot]:
        """Yield the objects as they were listed; holds nothing open."""
        folder = None
        if self.files.bad_rows == "reject":
            spec = self.spec
            folder = join(spec.state_uri, "rejected", spec.run_id, str(spec.attempt))
        form = self._objects.about["format"]
        chosen = self.spec.columns
        every_column_as_it_is = not (chosen.mask or chosen.exclude or chosen.include)
        reader = FilesReader(
            self.files, form, request.columns, self.open_storage, self.folder, folder,
            rejected_text=every_column_as_it_is,
        )  # fmt: skip
        yield FilesSnapshot(self.spec, self._objects, reader)

    # --- names -----------------------------------------------------------------------------

    @property
    def files(self) -> FilesSpec:
        """The part of the spec that is about files."""
        assert self.spec.files is not None
        return self.spec.files

    @property
    def folder(self) -> str:
        """The folder that globs start from, with a slash at the end."""
        assert self.spec.connection.uri is not None
        return folder_of(self.spec.connection.uri)

    @property
    def _storage(self) -> Storage:
        return self.open_storage(self.folder)

    @cached_property
    def _objects(self) -> ObjectList:
        return self.chosen or self._choose(None, datetime.now(UTC))

"""``init``: a config written from what a source holds, and one brought up to date with it."""

from __future__ import annotations

import argparse
import codecs
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import yaml
from rich.console import Console
from rich.progress import track

from extract_jobs.cli.config_header import config_header
from extract_jobs.cli.selection import read_config
from extract_jobs.cli.suggest import Suggestion, own_values, plain_or_quoted, suggest
from extract_jobs.config import SourceConfig, load_config, specs_for, with_table
from extract_jobs.config.file import YamlFile, parse_yaml
from extract_jobs.config.places import clashes
from extract_jobs.config.tables import place_of
from extract_jobs.errors import ConfigError, ExtractError, printable
from extract_jobs.reporting.figures import counted
from extract_jobs.sources import ListingSource, Source, open_source
from extract_jobs.sources.files.csv_rows import OtherDelimiter
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.spec.globs import bracket_hint, glob_pattern, glob_reaches, matches
from extract_jobs.spec.listed_table import ListedTable

_ANY_TABLE = "any"
_MOST_REASONS = 3
_MOST_NAMES = 5
_IS_VIEW = "a view, which may be slow to read: remove this comment's # to extract it"
_FILE_ENTRY = 'files: {glob: "any"}'
_ANY_LETTER = "\0"


def write_config(arguments: argparse.Namespace) -> str:
    """Write a config of what a source holds to a new file.

    Args:
        arguments: Of the command ``init``, with ``--from``.

    Returns:
        What was done, for a person.

    Raises:
        ConfigError: The file exists, the source cannot be listed, or it has no tables.
        SourceUnavailable: The source cannot be reached.
    """
    path = Path(arguments.path)
    if path.exists():
        raise ConfigError(
            f"{path} already exists and was not changed; --update adds the tables that are new"
        )
    header = config_header(path, arguments)
    suggestions = _suggestions(header, path, arguments)
    if all(s.problem is not None for s in suggestions):
        reasons = (f"{s.name}: {s.problem}" for s in suggestions[:_MOST_REASONS])
        raise ConfigError(f"no table can be extracted as it is; {'; '.join(reasons)}")
    text = header + "".join(s.text("  ") for s in suggestions)
    load_config(text, str(path), str(path.absolute().parent))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    return f"{path} written, {_counts(suggestions)}; next: extract-jobs validate {path}"


def update_config(arguments: argparse.Namespace) -> str:
    """Add tables that a source has and its config lacks; everything else stays as it is written.

    Tables that stand in a comment, as ``# name:``, count as known.

    Raises:
        ConfigError: The config is wrong or cannot be extended, or the source cannot be listed.
        SourceUnavailable: The source cannot be reached.
    """
    if arguments.source is not None:
        raise ConfigError("--update lists the source that the config names; leave --from out")
    if "://" in arguments.path:
        raise ConfigError(f"{arguments.path}: --update changes files of this machine only")
    path = Path(arguments.path)
    config = read_config(str(path))
    before = path.read_bytes()
    text = before.decode("utf-8-sig")
    written = parse_yaml(text, str(path))
    line, indent = _end_of_tables(written, text)
    head = {key: value for key, value in written.data.items() if key != "tables"}
    header = f"{yaml.safe_dump(head)}tables:\n"
    suggestions = _suggestions(header, path, arguments, _Known(config, text))
    if not suggestions:
        return f"{path}: no table is new"
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if line and not lines[line - 1].endswith("\n"):
        lines[line - 1] += newline
    added = "".join(s.text(indent) for s in suggestions).replace("\n", newline)
    changed = "".join([*lines[:line], added, *lines[line:]])
    after = load_config(changed, str(path), config.folder)
    if any(after.tables[n].config != t.config for n, t in config.tables.items()):
        raise ConfigError(f"{path} was not changed; add these lines to tables by hand:\n{added}")
    encoding = "utf-8-sig" if before.startswith(codecs.BOM_UTF8) else "utf-8"
    _replace(path, before, changed.encode(encoding))
    names = [s.name for s in suggestions if s.problem is None]
    shown = ", ".join(map(printable, names[:_MOST_NAMES]))
    shown += ", …" if len(names) > _MOST_NAMES else ""
    return f"{path}: added {_counts(suggestions)}" + (f": {shown}" if names else "")


def _counts(suggestions: Sequence[Suggestion]) -> str:
    left = sum(s.problem is not None for s in suggestions)
    text = counted(len(suggestions) - left, "table")
    return f"{text}, and {left} commented out with the reason for each" if left else text


def _replace(path: Path, before: bytes, after: bytes) -> None:
    """Replace a file's content at one moment, and keep its permissions and links to it.

    Raises:
        ConfigError: The file has other content than before, or cannot be written.
    """
    target = path.resolve()
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(after)
            shutil.copymode(target, name)
            if target.read_bytes() != before:
                raise ConfigError(f"{path} was edited meanwhile and was not changed; run it again")
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


# --- tables --------------------------------------------------------------------------------------


class _Known:
    """Tables that a config has already, as entries or as comments."""

    def __init__(self, config: SourceConfig, text: str) -> None:
        self.places = config.tables.places
        self._names = set(config.tables)
        self._patterns = config.patterns
        self._uri = config.source.connection.uri or ""
        self._read = [
            glob_pattern(t.config.files.glob) for t in config.tables.values() if t.config.files
        ]
        self._text = text

    def __contains__(self, listed: ListedTable) -> bool:
        return (
            listed.name in self._names
            or listed.bare in self._names
            or (listed.glob is not None and self._reads_or_writes(listed.glob))
            or any(pattern.matches(listed) for pattern in self._patterns)
            or re.search(rf"(?m)^\s*#\s*{re.escape(plain_or_quoted(listed.name))}:", self._text)
            is not None
        )

    def _reads_or_writes(self, glob: str) -> bool:
        """Return whether a table reads all that a glob matches, or writes some of it."""
        path = glob.replace("*", 2 * _ANY_LETTER).replace("?", _ANY_LETTER)
        return any(pattern.fullmatch(path) for pattern in self._read) or any(
            glob_reaches(self._uri, glob, folder)
            for place in self.places.values()
            for folder in (place.target_uri, place.state_uri)
        )


def _suggestions(
    header: str, path: Path, arguments: argparse.Namespace, known: _Known | None = None
) -> list[Suggestion]:
    is_files = parse_yaml(header, str(path)).data["source"]["type"] == "files"
    any_table = f"  {_ANY_TABLE}: {{{_FILE_ENTRY if is_files else ''}}}\n"
    head = load_config(header + any_table, str(path), str(path.absolute().parent))

    def spec_of(config: SourceConfig) -> ExtractSpec:
        [spec] = specs_for(config, list(config.tables), run_id_for=lambda _: "none", confirmed=True)
        return spec

    source = _opened(spec_of(head), arguments)
    if not isinstance(source, ListingSource):
        raise ConfigError(f"{path}: tables of this type of source cannot be listed")
    everything = list(source.tables())
    for glob in (*arguments.select, *arguments.exclude):
        if (hint := bracket_hint(glob)) and not any(matches(t.name, glob) for t in everything):
            raise ConfigError(f"no table matches {glob}{hint}")
    listed = [table for table in everything if _is_wanted(table.name, arguments)]
    if known is None and not everything:
        raise ConfigError("the source has no table that the user may read")
    if known is None and not listed:
        raise ConfigError("no table that the user may read matches --select and --exclude")
    suggestions: list[Suggestion] = []
    places = dict(known.places) if known else {}
    for table in _shown([one for one in listed if known is None or one not in known]):
        if table.problem is not None:
            suggestions.append(Suggestion(table.name, problem=table.problem))
            continue
        try:
            found, config = _suggested(head, table, spec_of)
            places[table.name] = place_of(config.tables[table.name])
        except ExtractError as error:
            if error.retryable:
                raise
            found = Suggestion(table.name, problem=str(error))
        if table.is_view and found.problem is None:
            found = replace(found, problem=_IS_VIEW)
        suggestions.append(found)
    collided = {one.name: one.text for one in clashes(places)}
    return [
        Suggestion(s.name, problem=collided[s.name]) if s.name in collided else s
        for s in suggestions
    ]


def _opened(spec: ExtractSpec, arguments: argparse.Namespace) -> Source:
    """Open the source; a person who has no config yet names the driver on the command line.

    Raises:
        ExtractError: As `open_source`.
    """
    try:
        return open_source(spec)
    except ConfigError as error:
        if arguments.update:
            raise
        text = re.sub(r"\bin connection\.(jars|packages)\b", "in --driver", str(error))
        raise ConfigError(text) from error


def _suggested(
    head: SourceConfig, table: ListedTable, spec_of: Callable[[SourceConfig], ExtractSpec]
) -> tuple[Suggestion, SourceConfig]:
    """Describe a table, and return what to write of it, and its config.

    Raises:
        ExtractError: It cannot be extracted.
    """
    config = with_table(head, table.name, own_values(table))
    try:
        return suggest(table, open_source(spec_of(config)).describe()), config
    except ExtractError as error:
        if table.delimiter is None and isinstance(error.__cause__, OtherDelimiter):
            return _suggested(head, replace(table, delimiter=str(error.__cause__)), spec_of)
        if table.format == "json":
            with suppress(ExtractError):
                return _suggested(head, replace(table, format="jsonl"), spec_of)
        raise


def _shown(tables: Sequence[ListedTable]) -> Iterator[ListedTable]:
    console = Console(stderr=True)
    yield from track(
        tables, "describing tables", console=console, transient=True,
        disable=not sys.stderr.isatty(),
    )  # fmt: skip


def _is_wanted(name: str, arguments: argparse.Namespace) -> bool:
    def fits(globs: Sequence[str]) -> bool:
        return any(matches(name, glob) for glob in globs)

    return (not arguments.select or fits(arguments.select)) and not fits(arguments.exclude)


def _end_of_tables(written: YamlFile, text: str) -> tuple[int, str]:
    """Return the line, from 0, that a new table goes before, and its indentation.

    Raises:
        ConfigError: The key ``tables`` is not written as a block, one table below the other.
    """
    root = written.root
    assert isinstance(root, yaml.MappingNode)
    tables = next(value for key, value in root.value if key.value == "tables")
    if not isinstance(tables, yaml.MappingNode) or tables.flow_style or not tables.value:
        raise ConfigError(
            f"{written.where}: write tables as a block, one table below the other, first"
        )
    lines = text.splitlines()
    end = min(tables.end_mark.line, len(lines)) if tables.end_mark.column == 0 else len(lines)
    while end > 0 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1
    return end, " " * tables.value[0][0].start_mark.column

"""Finds the tables in a folder by the names of its files: one glob for each table.

Files of one table differ in digits (dates, sequence numbers) and in folders of partitions.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from extract_jobs.errors import ConfigError
from extract_jobs.reporting.figures import counted
from extract_jobs.sources.files.listing import extension, named_format, not_read
from extract_jobs.spec.globs import glob_pattern
from extract_jobs.spec.listed_table import ListedTable

MOST_LISTED = 20_000
"""Maximum objects of a folder that are examined."""
MOST_TABLES = 500

_PARTITION = re.compile(r"[^=]+=.*|[\d\-_]+")
_NUMBERS = re.compile(r"\d[\dT:\-_]*\d|\d")
_DATE_DIGITS = 8
_PART_FILE = re.compile(r"part-.*")
_FORMATS = {"tsv": ("csv", "\t"), "tab": ("csv", "\t"), "json": ("json", None)}
"""Extensions that probably mean a format and a delimiter, which a config must then state."""
_NO_DATA = frozenset({"yml", "yaml"})
"""Extensions of configs, which may lie beside the files."""
_MOST_KINDS = 20
_MOST_NAMED = 3


def globs_of(paths: Sequence[str]) -> list[ListedTable]:
    """Group files into tables.

    Args:
        paths: Of files, below the source's folder.

    Returns:
        One table for each group, by name; a glob that also matches files of another group is its
        table's ``problem``. Then one for each extension of files whose names do not say that they
        can be read, without a glob: the ``problem`` names some of them, and the reason.

    Raises:
        ConfigError: The names show no tables.
    """
    found: dict[str, list[str]] = defaultdict(list)
    unread: list[str] = []
    for path in paths:
        *folders, name = path.split("/")
        if named_format(name) is not None or extension(name) in _FORMATS:
            outer = next((i for i, f in enumerate(folders) if _PARTITION.fullmatch(f)), None)
            base = [*folders[:outer], *([] if outer is None else ["**"])]
            found["/".join([*base, _wild_name(name)])].append(path)
        elif extension(name) not in _NO_DATA:
            unread.append(path)
    if len(found) > MOST_TABLES:
        raise ConfigError(
            f"the files have names of more than {MOST_TABLES} kinds, which do not show what the "
            "tables are: write files.glob by hand"
        )
    tables = []
    for glob, members in found.items():
        own, other = set(members), None
        for written in (glob, members[0]) if len(members) == 1 else (glob,):
            matching = glob_pattern(written)
            other = next((p for p in paths if p not in own and matching.fullmatch(p)), None)
            if other is None:
                break
        problem = other and f"its glob matches files of other tables too: {other}"
        form, delimiter = _FORMATS.get(extension(written), (None, None))
        tables.append(
            ListedTable(
                _name(written), glob=written, format=form, delimiter=delimiter, problem=problem
            )
        )
    tables = sorted(_with_unique_names(tables), key=lambda table: table.name)
    return [*tables, *_left_out(unread)]


def _left_out(paths: Sequence[str]) -> Iterator[ListedTable]:
    """Yield an entry without a glob for each extension of files that are not read."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths):
        kind = f"*{posixpath.splitext(path)[1].lower()}"
        kinds[kind if kind in kinds or len(kinds) < _MOST_KINDS else "*"].append(path)
    for kind, members in sorted(kinds.items()):
        named = ", ".join([*members[:_MOST_NAMED], *(["…"] if len(members) > _MOST_NAMED else [])])
        reason = not_read(kind) or (
            "the name indicates no format; for CSV or JSON, add an entry with files.glob and "
            "files.format"
        )
        yield ListedTable(kind, problem=f"{counted(len(members), 'file')} ({named}): {reason}")


def _with_unique_names(tables: Sequence[ListedTable]) -> list[ListedTable]:
    """Add the files' extensions to names that several tables have, and numbers if still needed."""
    often = Counter(table.name for table in tables)
    taken = {name for name, times in often.items() if times == 1}
    found = []
    for table in sorted(tables, key=lambda table: table.glob or ""):
        name = table.name
        if often[name] > 1:
            ending = (table.glob or "").rpartition("/")[2].partition(".")[2]
            longer = name = "_".join([name, *re.findall(r"\w+", ending)])
            numbers = itertools.count(2)
            while name in taken:
                name = f"{longer}_{next(numbers)}"
            taken.add(name)
        found.append(replace(table, name=name))
    return found


def _wild_name(name: str) -> str:
    """Return the glob of all files named like this one, except for numbers."""
    if _PART_FILE.fullmatch(name):
        return "*" + name[name.index(".") :]
    return _NUMBERS.sub(lambda found: _wild(found[0]), name)


def _wild(number: str) -> str:
    """Return a pattern for a file's number: a date keeps its length, a counter may grow."""
    return "?" * len(number) if len(number) >= _DATE_DIGITS else "*"


def _name(glob: str) -> str:
    folder, _, file = glob.replace("**/", "").rpartition("/")
    words = re.sub(r"[*?/.()\[\]{}]+", " ", f"{folder}/{file.partition('.')[0]}").split()
    return "_".join(word.strip("-_") for word in words if word.strip("-_")) or "files"

"""Writes the pages on sources and types from the code: ``python -m infra.source_pages``.

``docs/sources.md`` is generated from each source's `Features` and its package's docstring below the
first paragraph; ``docs/types.md`` from its rules. A test compares both with the code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from extract_jobs.schema import TypeRule
from extract_jobs.sources import Features

PAGES = Path(__file__).parents[1] / "docs"
"""Where the pages are, in a checkout."""

_NOTICE = "<!-- Made by python -m infra.source_pages: change the code, not this page. -->"
_FIDELITY = {
    "lossless": "lossless",
    "as_text": "as text",
    "by_permission": "by permission",
    "refused": "refused",
}


@dataclass(frozen=True)
class Documented:
    """What the pages say about one source.

    Attributes:
        types: Each ``source.type`` that selects it.
        package: Its package, whose docstring has the details.
        features: Its features.
        rules: Its tables of types, by their titles.
        settings: Settings that its sessions override on the server: name, value, what it changes.
    """

    types: tuple[str, ...]
    package: ModuleType
    features: Features
    rules: dict[str, tuple[TypeRule, ...]]
    settings: tuple[tuple[str, str, str], ...] = ()

    @property
    def title(self) -> str:
        """Its types, as headings name them."""
        return ", ".join(self.types)

    @property
    def notes(self) -> str:
        """What the package's docstring says below its first paragraph."""
        return (inspect.getdoc(self.package) or "").partition("\n\n")[2].replace("``", "`")


def documented() -> tuple[Documented, ...]:
    """Return every source, in the order of the pages."""
    # Imported here: nothing else needs all sources at once.
    from extract_jobs.sources import files, jdbc, mysql, postgres, sqlite
    from extract_jobs.sources.files import source as files_source
    from extract_jobs.sources.files import types as files_types
    from extract_jobs.sources.jdbc import rules as jdbc_rules
    from extract_jobs.sources.jdbc import source as jdbc_source
    from extract_jobs.sources.mysql import settings as mysql_settings
    from extract_jobs.sources.mysql import source as mysql_source
    from extract_jobs.sources.mysql import types as mysql_types
    from extract_jobs.sources.postgres import source as postgres_source
    from extract_jobs.sources.postgres import types as postgres_types
    from extract_jobs.sources.sqlite import source as sqlite_source
    from extract_jobs.sources.sqlite import types as sqlite_types

    jdbc_titles = {
        "sqlserver": "SQL Server",
        "oracle": "Oracle",
        "redshift": "Redshift",
        "jdbc": "Any other database by JDBC",
    }
    return (
        Documented(
            ("postgres",), postgres, postgres_source.FEATURES,
            {"PostgreSQL": postgres_types.TYPE_RULES},
        ),
        Documented(
            ("mysql",), mysql, mysql_source.FEATURES,
            {"MySQL and MariaDB": mysql_types.TYPE_RULES},
            tuple((one.name, one.value, one.what) for one in mysql_settings.SETTINGS),
        ),
        Documented(
            ("sqlite",), sqlite, sqlite_source.FEATURES, {"SQLite": sqlite_types.TYPE_RULES}
        ),
        Documented(
            tuple(jdbc_titles), jdbc, jdbc_source.FEATURES,
            {title: jdbc_rules.TYPE_RULES[name] for name, title in jdbc_titles.items()},
        ),
        Documented(("files",), files, files_source.FEATURES, {"Files": files_types.TYPE_RULES}),
    )  # fmt: skip


_ROWS: dict[str, Callable[[Features], str]] = {
    "rows are read by": lambda f: f.reads_by,
    "all splits share one snapshot": lambda f: (
        f.shared_snapshot if isinstance(f.shared_snapshot, str) else _yes(f.shared_snapshot)
    ),
    "`split.strategy`": lambda f: ", ".join(f"`{name}`" for name in f.strategies),
    "`mode: incremental` by": lambda f: "; ".join(f.incremental) or "-",
    "a `query` in a table's place": lambda f: _yes(f.queries),
    "`where`": lambda f: _yes(f.where),
    "the tests run it against": lambda f: "; ".join(f.run_live),
    "by documentation alone": lambda f: "; ".join(f.unverified) or "-",
}


def sources_page(found: Sequence[Documented]) -> str:
    """Return the page on sources: what each can do."""
    lines = [
        "# Sources",
        "",
        _NOTICE,
        "",
        "Which values `source.type` can have, and what each source can do. How their types arrive",
        "is in [types](types.md), the keys of `connection` are in [config](config.md), and how to",
        "add a source is in [adding a source](adding-a-source.md).",
        "",
        *_table(
            ["", *(", ".join(f"`{name}`" for name in one.types) for one in found)],
            [[label, *(tell(one.features) for one in found)] for label, tell in _ROWS.items()],
        ),
    ]
    for one in found:
        if one.notes:
            lines += ["", f"## {one.title}", "", one.notes]
        if one.settings:
            rows = [[f"`{name}`", f"`{value}`", what] for name, value, what in one.settings]
            lines += [
                "",
                "Settings of the server or of `init_connect` that are overridden, where the server",
                "has them, so that they cannot change what is read. Isolation is `repeatable",
                "read, read only`. Settings that no session can change (`ft_min_word_len`, other",
                "rules of full-text search, `lower_case_table_names`) stay the server's.",
                "",
                *_table(["setting", "is", "what it would change"], rows),
            ]
    return "\n".join(lines) + "\n"


def types_page(found: Sequence[Documented]) -> str:
    """Return the page on types: one table for each source."""
    lines = [
        "# Types",
        "",
        _NOTICE,
        "",
        "Files contain what the source contained, or the run says why not. Each type of a source",
        "is one of these:",
        "",
        "- *lossless*: every value arrives as it is, and reads back as it was;",
        "- *as text*: the value arrives as the text that the source itself prints for it;",
        "- *by permission*: only where `columns.cast` or `lossy_types` allows it;",
        "- *refused*: the run fails before it reads a row, and names the columns.",
        "",
        "A value that has no faithful form in its column's type fails the run, unless",
        "[`lossy_types`](config.md) says otherwise: `null` makes it NULL and counts it, `string`",
        "takes columns that could hold such values as the source's text. The report lists the rule",
        "of every column under `fidelity`. Types are spelled as `columns.cast` takes them.",
    ]
    for one in found:
        for title, rules in one.rules.items():
            rows = [
                [rule.source_type, rule.arrives_as, _FIDELITY[rule.fidelity],
                 rule.reason.removesuffix(".")]
                for rule in rules
            ]  # fmt: skip
            head = [f"type in {title}" if title != "Files" else "in the files", "arrives as", "",
                    "why"]  # fmt: skip
            lines += ["", f"## {title}", "", *_table(head, rows)]
    return "\n".join(lines) + "\n"


def _yes(whether: bool) -> str:
    return "yes" if whether else "no"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    listed = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in listed]


def pages() -> dict[str, str]:
    """Return every page's text by its file's name."""
    found = documented()
    return {"sources.md": sources_page(found), "types.md": types_page(found)}


if __name__ == "__main__":
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8")

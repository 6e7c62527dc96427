"""`docs/comparison.md`, from the results that are kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.fidelity.behaviour import behaviour_section
from tests.fidelity.judge import Verdict
from tests.fidelity.peer import PEERS, Peer
from tests.fidelity.results import Column, Result, load

OURS = "ours"
NAMES = {"postgres": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB", "sqlite": "SQLite"}
_CELLS = {
    Verdict.EQUAL: "=",
    Verdict.OTHER: "≈",
    Verdict.REFUSED: "refused",
    Verdict.CRASHED: "crashed",
    Verdict.WRONG: "**wrong**",
}
_INTRO = """\
# Compared with other tools

`make fidelity` writes this page. For each database it extracts one table, which has every type with
its extreme values, with extract-jobs and with other tools. Each tool has its own environment with
pinned packages, and is used as its documentation recommends. Every value in the Parquet files is
compared with what the database's own client prints.

- `=` equal: the printed value, in a type of the same kind.
- `≈` equal in another type: the printed value can be derived from it, for example a number as text,
  an instant in UTC without its zone, or the bytes of the server's binary protocol.
- refused: the extract fails with an error. An error that stops a whole extract counts for the
  columns that cause it.
- crashed: the process ends or hangs without a result.
- **wrong**: another value, a NULL or no row, without any error.

The worst of its values decides a column's result. A refusal is honest, but the column is not
extracted. extract-jobs names the column that it refuses. If the config says so, it extracts the
column as text (`lossy_types: string`) or with counted NULLs (`lossy_types: "null"`).
"""


def write_page(kept: Path, page: Path) -> None:
    """Write the page from the results below a folder."""
    results = [load(path) for path in sorted(kept.glob("*.json")) if "." in path.stem]
    notes = {path.stem: path.read_text("utf-8") for path in sorted(kept.glob("*.not-run"))}
    page.write_text(render(results, notes, behaviour_section(kept)), "utf-8")


def render(results: Sequence[Result], notes: dict[str, str], behaviour: str = "") -> str:
    """Return the page's text.

    Args:
        results: One for each tool and database.
        notes: Why a tool was not run, by its name.
        behaviour: The part on behaviour, if it was measured.
    """
    peers = [peer for peer in PEERS if any(r.peer == peer.name for r in results)]
    parts = [
        _INTRO,
        _tools(peers, results, notes),
        _worse(results),
        _totals(peers, results),
        behaviour,
        *(_types(database, peers, results) for database in NAMES),
        _wrong(peers, results),
        _refused(peers, results),
    ]
    return "\n".join(part for part in parts if part)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _code(text: str) -> str:
    """Return text as code in a cell of a table."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text.replace('|', chr(92) + '|')}{fence}" if text else ""


def _tools(peers: Sequence[Peer], results: Sequence[Result], notes: dict[str, str]) -> str:
    rows = []
    for peer in peers:
        own = [result for result in results if result.peer == peer.name]
        versions = " ".join(sorted({result.version for result in own}))
        days = " ".join(sorted({result.day for result in own}))
        rows.append((peer.title, versions, days, peer.way))
    servers = ", ".join(sorted({result.server for result in results}))
    said = [f"\nServers: {servers}.\n"]
    missing: dict[str, list[str]] = defaultdict(list)
    for peer in PEERS:
        if peer not in peers or peer.name in notes:
            why = notes.get(peer.name, "not among the tools of the last runs")
            missing[why].append(peer.title)
        elif peer.note:
            said.append(f"\n{peer.title}: {peer.note}\n")
    said += [f"\nNot run: {', '.join(titles)}: {why}.\n" for why, titles in missing.items()]
    return "\n## Tools\n\n" + _table(("tool", "version", "run on", "way"), rows) + "".join(said)


def worse_than_a_peer(
    ours: Result, others: Sequence[Result]
) -> list[tuple[str, Column, dict[str, list[str]]]]:
    """Return the columns of which a peer extracted some value better, with those peers by verdict.

    Values are compared one by one, so a peer that gets the ordinary values of a type right counts
    even if it gets an extreme one wrong. But where the column was refused for such a value, a peer
    that alters the value in silence is no better.
    """
    found = []
    for name, column in ours.columns.items():
        better: dict[str, list[str]] = defaultdict(list)
        for other in others:
            theirs = other.columns.get(name)
            if theirs is None:
                continue
            pairs = zip(column.verdicts, theirs.verdicts, strict=True)
            if column.worst is Verdict.REFUSED and theirs.worst is Verdict.WRONG:
                continue
            if any(Verdict(their).rank < Verdict(own).rank for own, their in pairs):
                better[str(theirs.worst)].append(other.peer)
        if better:
            found.append((name, column, dict(better)))
    return found


def _worse(results: Sequence[Result]) -> str:
    titles = {peer.name: peer.title for peer in PEERS}
    rows = []
    for ours in (result for result in results if result.peer == OURS):
        others = [r for r in results if r.database == ours.database and r.peer != OURS]
        for _, column, better in worse_than_a_peer(ours, others):
            cells = []
            for verdict in sorted(map(Verdict, better), key=lambda verdict: verdict.rank):
                names = ", ".join(titles[name] for name in better[verdict])
                part = verdict.rank > Verdict.OTHER.rank
                cells.append(f"{names}{' (some values; others ' + verdict + ')' if part else ''}")
            own = f"{column.worst}{': ' + column.arrow if column.arrow else ''}"
            rows.append((NAMES[ours.database], _code(column.type), own, "; ".join(cells)))
    text = "\n## Where another tool is better\n\n"
    if not rows:
        return text + "No type, in these runs.\n"
    heads = ("database", "type", "extract-jobs", "better for at least one value")
    return text + _table(heads, rows)


def _totals(peers: Sequence[Peer], results: Sequence[Result]) -> str:
    rows = []
    for database, title in NAMES.items():
        for peer in peers:
            for result in results:
                if (result.database, result.peer) == (database, peer.name):
                    counts = [str(result.total[verdict]) for verdict in Verdict]
                    rows.append((title, f"{peer.title} {result.version}", *counts))
    heads = ("database", "tool", *(str(verdict) for verdict in Verdict))
    return "\n## Columns by verdict\n\n" + _table(heads, rows)


def _types(database: str, peers: Sequence[Peer], results: Sequence[Result]) -> str:
    own = {r.peer: r for r in results if r.database == database}
    shown = [peer for peer in peers if peer.name in own]
    if not shown:
        return ""
    rows = []
    for name, column in own[shown[0].name].columns.items():
        cells = [_cell(own[peer.name].columns.get(name)) for peer in shown]
        rows.append((_code(column.type), *cells))
    heads = ("type", *(peer.title for peer in shown))
    return f"\n## {NAMES[database]}, type by type\n\n" + _table(heads, rows)


def _cell(column: Column | None) -> str:
    if column is None:
        return "–"
    worst = column.worst
    count = column.count(worst)
    of = f" {count}/{len(column.verdicts)}" if worst is Verdict.WRONG else ""
    return _CELLS[worst] + of


def _wrong(peers: Sequence[Peer], results: Sequence[Result]) -> str:
    rows = [
        (peer.title, NAMES[result.database], _code(column.type), _code(column.detail))
        for peer in peers
        for result in results
        if result.peer == peer.name
        for column in result.columns.values()
        if column.worst in (Verdict.WRONG, Verdict.CRASHED)
    ]
    heads = ("tool", "database", "type", "the first such value")
    return "\n## What is wrong in silence\n\n" + _table(heads, rows)


def _refused(peers: Sequence[Peer], results: Sequence[Result]) -> str:
    rows = []
    for peer in peers:
        for result in (r for r in results if r.peer == peer.name):
            reasons: dict[str, list[str]] = defaultdict(list)
            for column in result.columns.values():
                if column.worst is Verdict.REFUSED:
                    reasons[reason_kind(column.detail)].append(column.type)
            for reason, types in reasons.items():
                listed = ", ".join(_code(kind) for kind in types)
                rows.append((peer.title, NAMES[result.database], _code(reason), listed))
    return "\n## What is refused\n\n" + _table(("tool", "database", "reason", "types"), rows)


def reason_kind(message: str) -> str:
    """Return the part of an error's text that its brothers share: the class and a few words."""
    name, _, rest = message.partition(": ")
    return f"{name}: {' '.join(rest.split()[:2])}".rstrip(":… ")

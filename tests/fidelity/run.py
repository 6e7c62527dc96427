"""Extract the torture tables by every tool, and write `docs/comparison.md`: `make fidelity`.

    python -m tests.fidelity.run [--database postgres]… [--only connectorx]… [--part behaviour]

Results are kept in `.bench/fidelity`, one file for each tool and database: a run of some of them
renews these and writes the page from all.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tests.fidelity.behaviour import BEHAVES, run_behaviour
from tests.fidelity.page import write_page
from tests.fidelity.peer import PEERS, ROOT, Extracted, Peer, extract, working
from tests.fidelity.results import Result, judge_columns
from tests.fidelity.tables import TABLES, Torture

KEPT = ROOT / ".bench" / "fidelity"


def main(argv: list[str] | None = None) -> int:
    """Run what the arguments choose; 1 if a tool could not be installed that can be elsewhere."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--database", action="append", choices=list(TABLES))
    parser.add_argument("--only", action="append", choices=[peer.name for peer in PEERS])
    parser.add_argument("--part", choices=["types", "behaviour"], help="only one of the two")
    parser.add_argument("--page-only", action="store_true", help="write the page from what is kept")
    arguments = parser.parse_args(argv)
    failed = False
    if not arguments.page_only:
        chosen = [peer for peer in PEERS if peer.name in (arguments.only or [peer.name])]
        ready = [peer for peer in chosen if _prepared(peer)]
        failed = any(peer not in ready and not peer.unavailable for peer in chosen)
        if arguments.part != "behaviour":
            for database in arguments.database or TABLES:
                with TABLES[database]() as table:
                    for peer in (peer for peer in ready if database in peer.databases):
                        compare(peer, table)
        if arguments.part != "types":
            for peer in (peer for peer in ready if peer.name in BEHAVES):
                run_behaviour(peer, KEPT)
    write_page(KEPT, ROOT / "docs" / "comparison.md")
    return int(failed)


def _prepared(peer: Peer) -> bool:
    note = KEPT / f"{peer.name}.not-run"
    try:
        peer.prepare()
    except RuntimeError as error:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(str(error), "utf-8")
        print(f"{peer.title}: not run: {error}", file=sys.stderr)
        return False
    note.unlink(missing_ok=True)
    return True


def compare(peer: Peer, table: Torture) -> None:
    """Extract a table by one tool, judge it, and keep the result."""
    started = datetime.now(UTC)
    left_out = peer.left_out.get(table.database, {})
    columns = [case.column for case in table.cases if case.column not in left_out]
    read = replace(table, table=f"{table.table}_without") if left_out else table
    folder = Path(tempfile.mkdtemp(prefix=f"fidelity-{peer.name}-"))
    log = KEPT / f"{table.database}.{peer.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    try:
        with working(peer, log) as worker:
            extracted = extract(worker, read, columns, folder / "x")
        extracted |= {name: Extracted(refused=why) for name, why in left_out.items()}
        judged = judge_columns(table, extracted)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result = Result(
        table.database, table.version, peer.name, peer.version(), str(started.date()), judged
    )
    result.save(KEPT)
    seconds = (datetime.now(UTC) - started).total_seconds()
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(
        result.total.items(), key=lambda item: item[0].rank))  # fmt: skip
    print(f"{table.version}, {peer.title} {result.version}: {counts} ({seconds:.0f} s)")


if __name__ == "__main__":
    raise SystemExit(main())

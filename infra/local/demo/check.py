"""Reads the lake back and compares it with the database, with the same SQL on both."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import boto3
import duckdb
from rich.console import Console
from rich.table import Table

from infra.local.board import print_table
from infra.local.demo.iceberg import duckdb_on, open_table
from infra.local.emulator import REGION
from infra.local.postgres import Database
from infra.local.stack import Stack

TARGET = "s3://lake/raw/sales"
SPENDERS = (
    "(select customer_id, count(*) as orders, sum(total) as total from shop.orders "
    "group by customer_id having sum(total) > 100000)"
)
#: Table to its folder below the target, what to query on both sides, and where the source has it.
QUESTIONS = {
    "shop.customers": ("shop/customers", "count(*), count(full_name), sum(customer_id)", None),
    "shop.products": ("shop/products", "count(*), sum(price), count(weight_kg)", None),
    "shop.orders": ("shop/orders", "count(*), sum(total), count(distinct updated_at)", None),
    "shop.order_items": (
        "shop/order_items", "count(*), sum(quantity * unit_price), sum(discount)", None,
    ),
    "shop.payments": ("shop/payments", "count(*), sum(amount), max(paid_at)", None),
    "shop.events": ("shop/events", "count(*), count(payload), sum(event_id)", None),
    "shop.gift_cards": (
        "shop/gift_cards", "count(*), sum(balance)",
        "(select balance::numeric as balance from shop.gift_cards)",
    ),
    "big_spenders": ("query/big_spenders", "count(*), sum(orders), sum(total)", SPENDERS),
}  # fmt: skip


ICEBERG = {"shop.orders": "orders"}
"""Table to its name in the catalog."""


def compare(stack: Stack, database: Database, tables: Sequence[str], console: Console) -> list[str]:
    """Run the same query on each table in the database and the lake, and show both answers.

    An Iceberg table is read by two tools.

    Returns:
        One line per difference.
    """
    shown = Table(title="The lake beside its source", title_justify="left", expand=True)
    for name in ("table", "question", "PostgreSQL", "lake", "read by", ""):
        shown.add_column(name, overflow="fold")
    differences = []
    with database.connect() as connection, duckdb_on(stack) as duck:
        connection.execute("set timezone = 'UTC'")
        for table in tables:
            _, question, relation = QUESTIONS[table]
            query = f"select {question} from {{}} t"  # noqa: S608 - literals of this module
            expected = connection.execute(query.format(relation or table).encode()).fetchone()
            for reader, actual in _answers(stack, duck, table, query):
                same = actual is not None and actual == expected
                shown.add_row(
                    table, question, _text(expected), _text(actual), reader,
                    "same" if same else "DIFFERS", style="" if same else "red",
                )  # fmt: skip
                if not same:
                    differences.append(
                        f"{table}: {question}: {expected} became {actual}, read by {reader}"
                    )
    print_table(shown, console)
    return differences


def _answers(
    stack: Stack, duck: duckdb.DuckDBPyConnection, table: str, query: str
) -> Iterator[tuple[str, tuple[Any, ...] | None]]:
    """Yield who reads a table of the lake, and the answer to a query; None if there is no table."""
    if table not in ICEBERG:
        yield "awswrangler", _asked(duck, query, _read(stack, f"{TARGET}/{QUESTIONS[table][0]}/"))
        return
    found = open_table(stack, ICEBERG[table])
    yield "pyiceberg", _asked(duck, query, found.scan().to_arrow())
    scan = f"iceberg_scan('{found.metadata_location}')"
    yield "DuckDB", duck.execute(query.format(scan)).fetchone()


def _asked(duck: duckdb.DuckDBPyConnection, query: str, rows: Any) -> tuple[Any, ...] | None:
    if rows is None:
        return None
    duck.register("lake", rows)
    return duck.execute(query.format("lake")).fetchone()


def rows_by_snapshot(stack: Stack, table: str) -> list[tuple[int, int]]:
    """Return the numbers of rows of an Iceberg table's snapshots, by pyiceberg and by DuckDB."""
    found, counts = open_table(stack, ICEBERG[table]), []
    with duckdb_on(stack) as duck:
        for snapshot in found.metadata.snapshots:
            number = snapshot.snapshot_id
            given = f"'{found.metadata_location}', snapshot_from_id={number}::ubigint"
            answer = duck.execute(f"from iceberg_scan({given}) select count(*)").fetchone()
            counts.append((found.scan(snapshot_id=number).count(), answer[0] if answer else -1))
    return counts


def _read(stack: Stack, uri: str) -> Any:
    """Return a table as awswrangler reads it, partition columns too; None if there is none."""
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    import awswrangler
    import pyarrow as pa

    awswrangler.config.s3_endpoint_url = stack.endpoint_url
    session = boto3.Session("test", "test", region_name=REGION)
    try:
        frame = awswrangler.s3.read_parquet(
            uri, dataset=True, boto3_session=session, dtype_backend="pyarrow"
        )
    except awswrangler.exceptions.NoFilesFound:
        return None
    return pa.Table.from_pandas(frame, preserve_index=False)


def _text(values: tuple[Any, ...] | None) -> str:
    """Return an answer as readable text."""
    return "  ".join(f"{v:,}" if isinstance(v, int | Decimal) else str(v) for v in values or ())

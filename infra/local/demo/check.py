"""Reads the Parquet back and compares it with the database, with the same SQL on both."""

from __future__ import annotations

import os
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import boto3
import duckdb
from rich.console import Console
from rich.table import Table

from infra.local.board import print_table
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


def compare(stack: Stack, database: Database, tables: Sequence[str], console: Console) -> list[str]:
    """Run the same query on each table in the database and the Parquet, and show both answers.

    Returns:
        One line per difference.
    """
    shown = Table(title="Parquet beside its source", title_justify="left", expand=True)
    for name in ("table", "question", "PostgreSQL", "Parquet", ""):
        shown.add_column(name, overflow="fold")
    differences = []
    with database.connect() as connection, duckdb.connect() as reader:
        reader.execute("set timezone = 'UTC'")
        connection.execute("set timezone = 'UTC'")
        for table in tables:
            folder, question, relation = QUESTIONS[table]
            query = f"select {question} from {{}} t"  # noqa: S608 - literals of this module
            expected = connection.execute(query.format(relation or table).encode()).fetchone()
            lake = _read(stack, f"{TARGET}/{folder}/")
            actual = None
            if lake is not None:
                reader.register("lake", lake)
                actual = reader.execute(query.format("lake")).fetchone()
            same = actual is not None and actual == expected
            shown.add_row(
                table, question, _text(expected), _text(actual), "same" if same else "DIFFERS",
                style="" if same else "red",
            )  # fmt: skip
            if not same:
                differences.append(f"{table}: {question}: {expected} became {actual}")
    print_table(shown, console)
    return differences


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

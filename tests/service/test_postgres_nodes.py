"""Reading a primary, its hot standby, and both through PgBouncer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.postgres_nodes import Nodes, PoolMode, run_pooler
from tests.support.postgres_source import filled, ids, snapshot_of, source


def test_a_standby_gives_the_rows_of_its_primary(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(nodes.primary, 5000)
    nodes.catch_up()
    found = source(nodes.standby, monkeypatch, tmp_path, extract_table="t")
    with snapshot_of(found) as snapshot:
        [split] = snapshot.splits(found.spec)
        assert sorted(ids(snapshot, split)) == list(range(1, 5001))
        assert snapshot.count() == 5000


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_pooler_gives_the_rows_of_its_server(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: PoolMode
) -> None:
    filled(nodes.primary, 5000)
    with run_pooler(nodes.primary, mode) as pooler:
        found = source(
            pooler, monkeypatch, tmp_path, extract_table="t", connection={"pooled": True}
        )
        with snapshot_of(found) as snapshot:
            [split] = snapshot.splits(found.spec)
            assert sorted(ids(snapshot, split)) == list(range(1, 5001))

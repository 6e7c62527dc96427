"""A MySQL table of several splits, and what moves its rows about while it is read."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pymysql

from tests.support.mysql_servers import MysqlServer

ROWS = 4000
NOTE = "n" * 100
SPLIT = {"target_bytes": 49152, "max_connections": 4}


def make_table(server: MysqlServer) -> None:
    """Make a table ``t`` that `SPLIT` cuts into several splits."""
    server.execute(
        "create table t (k int primary key, id int not null, note varchar(200), unique (id))"
    )
    server.insert("t", [(10 * i, i, NOTE) for i in range(ROWS)])
    server.execute("analyze table t")


class Writer:
    """Moves rows from one end of the key to the other, one transaction each, and adds some.

    Every transaction leaves as many rows as there are even numbers of ``id``, or one more: what
    several moments make of the table is seen.
    """

    def __init__(self, server: MysqlServer) -> None:
        self.server = server
        self.slowest = 0.0
        self.done = 0
        self._stop = threading.Event()

    def write(self) -> None:
        random_ = random.Random(1)
        connection = self.server.connect(autocommit=False)
        with contextlib.closing(connection), connection.cursor() as cursor:
            while not self._stop.is_set():
                begun = time.monotonic()
                moved = random_.randrange(100, ROWS)
                cursor.execute("select k from t where id = %s", (moved,))
                [key] = cursor.fetchone() or [0]
                connection.commit()
                to = 10 * ROWS - key + random_.randrange(1, 10)
                with contextlib.suppress(pymysql.IntegrityError):
                    cursor.execute("update t set k = %s where id = %s", (to, moved))
                cursor.execute(
                    "insert into t values (%s, %s, 'new')", (-1 - self.done, -1 - self.done)
                )
                connection.commit()
                self.done += 1
                took = time.monotonic() - begun
                self.slowest = max(self.slowest, took)
                self._stop.wait(min(took, 0.1))  # or it would take a core from the reader

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(self.write)
            try:
                while self.done < 20 and not future.done():
                    time.sleep(0.01)
                yield
            finally:
                self._stop.set()
                future.result()

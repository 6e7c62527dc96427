"""The loop of a peer: jobs as lines of JSON come in, and one answer goes out for each.

Runs in the peer's own environment, which has nothing but the peer: no import from outside it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote


class Job(NamedTuple):
    """What to extract, and where to."""

    database: str
    """postgres, mysql, mariadb or sqlite."""
    host: str
    port: int
    user: str
    password: str
    name: str
    """The database's; of SQLite, the path of its file."""
    table: str
    key: str
    columns: list[str]
    """Beside the key."""
    folder: str
    """An existing, empty folder for Parquet files, at any depth."""
    jars: str
    """JDBC drivers, separated by commas."""
    options: dict[str, Any] = {}  # noqa: RUF012 - a NamedTuple's default, which nobody changes
    """What the peer's script knows beside: cursors, partitions, dispositions."""

    @property
    def selected(self) -> list[str]:
        """The key and the columns."""
        return [self.key, *self.columns]

    @property
    def query(self) -> str:
        """A SELECT of the key and the columns."""
        return f"select {', '.join(self.selected)} from {self.table}"

    @property
    def file(self) -> str:
        """A Parquet file in the folder."""
        return f"{self.folder}/extracted.parquet"

    def uri(self, scheme: str = "") -> str:
        """Return the database's URL, password included."""
        if self.database == "sqlite":
            return f"{scheme or 'sqlite'}://{'' if scheme else '/'}{self.name}"
        kind = "postgresql" if self.database == "postgres" else "mysql"
        login = f"{quote(self.user)}:{quote(self.password)}@{self.host}:{self.port}"
        return f"{scheme or kind}://{login}/{self.name}"

    @property
    def jdbc(self) -> dict[str, str]:
        """The options of Spark's JDBC source for the database."""
        kind = "postgresql" if self.database == "postgres" else "mariadb"
        drivers = {"postgresql": "org.postgresql.Driver", "mariadb": "org.mariadb.jdbc.Driver"}
        return {
            "url": f"jdbc:{kind}://{self.host}:{self.port}/{self.name}",
            "driver": drivers[kind],
            "user": self.user,
            "password": self.password,
        }


ENDED = ("Py4JNetworkError", "ConnectionRefusedError")
"""What is raised when the JVM behind a script has ended: so does the script, to be started anew."""
BROKEN = (ImportError, FileNotFoundError, NameError)
"""What a script of ours or its environment raises that is incomplete: no verdict on the peer."""


def serve(extract: Callable[[Job], None]) -> None:
    """Answer every job of standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin:
        answer: dict[str, Any] = {}
        try:
            extract(Job(**json.loads(line)))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a panic of Rust is no Exception
            while (cause := error.__cause__) is not None:
                error = cause
            if "py4j" in sys.modules and type(error).__name__ in ENDED:
                os._exit(1)
            kind = "broken" if isinstance(error, BROKEN) else "error"
            answer[kind] = f"{type(error).__name__}: {error}"[:2000]
        print(json.dumps(answer), file=answers, flush=True)

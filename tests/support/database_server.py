"""What tests know about a database on a running server of any kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote


@dataclass(frozen=True)
class DatabaseServer:
    """One database of a running server, as tests address it."""

    host: str
    port: int
    user: str
    password: str
    database: str
    directory: Path

    scheme: ClassVar[str]

    @property
    def url(self) -> str:
        """The database's URL without its password."""
        return f"{self.scheme}://{quote(self.user)}@{self.host}:{self.port}/{quote(self.database)}"

    @property
    def uri(self) -> str:
        """The database's URL with its password."""
        return self.url.replace("@", f":{quote(self.password, safe='')}@", 1)

"""Differences between kinds of databases when a connection is resolved, one row each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Engine:
    """A kind of database.

    Attributes:
        title: Its name, for messages.
        port: The default.
        schemes: Schemes of URLs that are parsed; the first is used in examples.
        secret_words: A secret whose ``engine`` contains none of these belongs to another database.
            Empty accepts any.
        takes_jdbc: Whether a ``jdbc:`` URL is accepted too, unchanged.
        takes_certificate: Whether a client can show a certificate.
    """

    title: str
    port: int
    schemes: tuple[str, ...]
    secret_words: tuple[str, ...]
    takes_jdbc: bool = False
    takes_certificate: bool = False

    @property
    def example(self) -> str:
        """An example of a valid URL."""
        if not self.schemes:
            return "jdbc:h2:tcp://host/database"
        return f"{self.schemes[0]}://user@host:{self.port}/database"


ENGINES = {
    "postgres": Engine(
        "PostgreSQL", 5432, ("postgresql", "postgres"), ("postgres",), takes_certificate=True
    ),
    "mysql": Engine(
        "MySQL", 3306, ("mysql", "mariadb"), ("mysql", "mariadb"), takes_certificate=True
    ),
    "sqlserver": Engine(
        "SQL Server", 1433, ("sqlserver", "mssql"), ("sqlserver",), takes_jdbc=True
    ),
    "oracle": Engine("Oracle", 1521, ("oracle",), ("oracle",), takes_jdbc=True),
    "redshift": Engine(
        "Redshift", 5439, ("redshift", "postgresql"), ("redshift",), takes_jdbc=True
    ),
    "jdbc": Engine("any JDBC database", 0, (), (), takes_jdbc=True),
}
"""By ``source_type``, only databases with a server."""

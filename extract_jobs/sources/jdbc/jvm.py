"""Connections from Spark's driver, through the JDBC driver in its JVM.

They serve the catalog and watermarks: a few rows of text. A table's rows never come this way.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import ConfigError, ExtractError, SourceUnavailable
from extract_jobs.sources.jdbc.drivers import (
    Driver,
    driver_of,
    driver_properties,
    jar_files,
    url_of,
)
from extract_jobs.sources.jdbc.errors import connect_error, statement_error, thrown
from extract_jobs.sources.jdbc.types import Described
from extract_jobs.spark.session import spark_context, spark_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from extract_jobs.spec.extract_spec import ExtractSpec

logger = logging.getLogger(__name__)

_NULLABLE_NO = 0
_COUNTED_TABLES = 20_000


@dataclass(frozen=True)
class Jvm:
    """A Spark session whose JVM has the driver, and the connection.

    Attributes:
        spark: The session.
        driver_class: The driver's loaded class.
        connection: The connection, with credentials resolved.
        session_init: The first statement of a session; None for none.
    """

    spark: SparkSession
    driver_class: str
    connection: DatabaseConnection
    session_init: str | None

    @property
    def driver(self) -> Driver:
        """The driver's known settings."""
        return driver_of(self.url)

    @property
    def url(self) -> str:
        """The URL, without credentials."""
        return url_of(self.connection)

    def login(self) -> dict[str, str]:
        """Return user and password for one connection, as driver properties."""
        found = self.connection.login_now()
        given = {"user": found.user, "password": found.password}
        return {key: value for key, value in given.items() if value}

    def use_added_jars(self) -> None:
        """Let this JVM thread find classes of jars that were added to the session."""
        loader = self.spark._jsparkSession.sharedState().jarClassLoader()  # noqa: SLF001
        _java(self.spark).java.lang.Thread.currentThread().setContextClassLoader(loader)

    @contextlib.contextmanager
    def connect(self, what: str) -> Iterator[Opened]:
        """Open a connection, read-only if the driver allows it, and close it at the end.

        Args:
            what: What it is for, such as ``describing sales.orders``.

        Raises:
            ConfigError: The login was refused.
            SourceUnavailable: It cannot be reached.
            ExtractError: A statement failed: see `statement_error`.
        """
        java = self._connected()
        opened = Opened(java)
        failure: ExtractError | None = None
        try:
            with contextlib.suppress(Exception):  # not every driver can
                java.setReadOnly(True)
            if self.session_init:
                opened.execute(self.session_init)
            yield opened
        except ExtractError:
            raise
        except Exception as error:
            found = thrown(error)
            if found is None:
                raise
            failure = statement_error(found, what, shows=True)
        finally:
            with contextlib.suppress(Exception):  # it may be broken
                java.close()
        if failure is not None:
            # Raised outside the handler: the original may quote rows.
            raise failure

    def _connected(self) -> Any:
        connection = self.connection
        self.use_added_jars()
        java = _java(self.spark)
        properties = java.java.util.Properties()
        for key, value in (driver_properties(connection, self.driver) | self.login()).items():
            properties.setProperty(key, value)
        failure: ExtractError
        try:
            registry = java.org.apache.spark.sql.execution.datasources.jdbc.DriverRegistry
            registry.register(self.driver_class)
            found = registry.get(self.driver_class).connect(self.url, properties)
            if found is not None:
                return found
            failure = ConfigError(
                f"connection.driver {self.driver_class} does not take {connection.place}"
            )
        except Exception as error:
            caught = thrown(error)
            if caught is None:
                raise
            failure = connect_error(caught, connection.place, connection.connect_timeout_seconds)
        raise failure


@dataclass(frozen=True)
class Opened:
    """An open connection. Its methods raise py4j's errors."""

    java: Any

    def execute(self, statement: str) -> None:
        """Run a statement and ignore its result."""
        with contextlib.closing(self.java.createStatement()) as made:
            made.execute(statement)

    def rows(self, statement: str) -> list[tuple[str | None, ...]]:
        """Return the rows of a query, every value as text."""
        with contextlib.closing(self.java.createStatement()) as made:
            return _fetched(made.executeQuery(statement))

    def columns(self, statement: str) -> list[Described]:
        """Return a query's columns; it should select no rows."""
        with contextlib.closing(self.java.createStatement()) as made:
            data = made.executeQuery(statement).getMetaData()
            return [_described(data, i) for i in range(1, data.getColumnCount() + 1)]

    def tables(self, catalog: str | None, schema: str | None, name: str) -> list[tuple[Any, ...]]:
        """Return (catalog, schema, name, type) of tables that match patterns, ``%`` for any."""
        data = self.java.getMetaData()
        found = data.getTables(catalog, schema, name, None)
        labels = ("TABLE_CAT", "TABLE_SCHEM", "TABLE_NAME", "TABLE_TYPE")
        rows: list[tuple[Any, ...]] = []
        while len(rows) < _COUNTED_TABLES and found.next():
            rows.append(tuple(found.getString(label) for label in labels))
        found.close()
        return rows

    def primary_key(self, catalog: str | None, schema: str | None, name: str) -> tuple[str, ...]:
        """Return the columns of a table's primary key, in the key's order; empty if it has none."""
        found = self.java.getMetaData().getPrimaryKeys(catalog, schema, name)
        columns = []
        while found.next():
            columns.append((found.getShort("KEY_SEQ"), found.getString("COLUMN_NAME")))
        found.close()
        return tuple(column for _, column in sorted(columns))

    def leading_columns(self, catalog: str | None, schema: str | None, name: str) -> frozenset[str]:
        """Return the columns that are first in one of a table's indexes over all of its rows."""
        # The last argument keeps Oracle's driver from computing statistics.
        found = self.java.getMetaData().getIndexInfo(catalog, schema, name, False, True)
        columns = set()
        while found.next():
            is_whole = not found.getString("FILTER_CONDITION")
            if found.getShort("ORDINAL_POSITION") == 1 and is_whole:
                columns.add(found.getString("COLUMN_NAME"))
        found.close()
        return frozenset(columns - {None})


def _fetched(result: Any) -> list[tuple[str | None, ...]]:
    width = result.getMetaData().getColumnCount()
    rows = []
    while result.next():
        rows.append(tuple(result.getString(i) for i in range(1, width + 1)))
    return rows


def _described(data: Any, index: int) -> Described:
    return Described(
        name=str(data.getColumnLabel(index)),
        code=int(data.getColumnType(index)),
        type_name=str(data.getColumnTypeName(index)),
        precision=int(data.getPrecision(index)),
        scale=int(data.getScale(index)),
        nullable=data.isNullable(index) != _NULLABLE_NO,
        signed=bool(data.isSigned(index)),
    )


def open_jvm(spec: ExtractSpec, connection: DatabaseConnection, spark: SparkSession | None) -> Jvm:
    """Return a session whose JVM has the driver: the caller's, the active one, or a new one.

    The driver is looked for on Spark's class path, then in ``connection.jars``, then among
    ``connection.packages``, which Spark fetches from Maven. A new session starts with them.

    Raises:
        ConfigError: The driver was not found; the message names the classes and the places
            searched.
        SourceUnavailable: A package could not be downloaded.
    """
    wanted = spec.connection
    url = url_of(connection)
    jars = jar_files(wanted.jars)
    spark_context(spark, spec.split.max_connections, jars=jars, packages=wanted.packages)
    session = spark_session(spark)
    driver = driver_of(url)
    classes = (wanted.driver,) if wanted.driver else driver.classes
    if not classes:
        raise ConfigError(
            f"connection.driver is needed: the class of the JDBC driver for {connection.place}"
        )
    found = _load(session, classes, jars, wanted.packages)
    if found is None:
        raise ConfigError(_not_found(classes, driver, wanted.jars, wanted.packages))
    init = wanted.session_init or driver.session
    if spec.row_security == "refuse" and driver.refuses_hidden_rows:
        init = "; ".join(filter(None, (driver.refuses_hidden_rows, init)))
    return Jvm(session, found, connection, init)


def _load(
    session: SparkSession, classes: Sequence[str], jars: Sequence[str], packages: Sequence[str]
) -> str | None:
    """Return the class that can be loaded; jars are added to the session only if needed."""
    found = _loaded(session, classes)
    if found is not None:
        return found
    loader = session._jsparkSession.sessionState().resourceLoader()  # noqa: SLF001
    for place in (*jars, *(f"ivy://{package}" for package in packages)):
        try:
            loader.addJar(place)
        except Exception as error:  # noqa: BLE001 - whatever Hadoop or Ivy raised
            if place.startswith("ivy://"):
                # Ivy prints every place that it has tried; its error only repeats that.
                raise SourceUnavailable(
                    f"connection.packages: {place.removeprefix('ivy://')} could not be downloaded; "
                    "check the coordinate, and that Maven's repositories can be reached"
                ) from None
            raise ConfigError(
                f"connection.jars: {place} could not be added to the Spark session "
                f"({type(error).__name__}); check that it exists and that Spark's driver can reach "
                "it"
            ) from None
        found = _loaded(session, classes)
        if found is not None:
            return found
    return None


def _loaded(session: SparkSession, classes: Sequence[str]) -> str | None:
    state = session._jsparkSession.sharedState()  # noqa: SLF001
    for name in classes:
        try:
            _java(session).java.lang.Class.forName(name, True, state.jarClassLoader())
        except Exception as error:
            if "ClassNotFoundException" not in str(error):
                raise
        else:
            return name
    return None


def _not_found(
    classes: Sequence[str], driver: Driver, jars: Sequence[str], packages: Sequence[str]
) -> str:
    places = ["on Spark's class path"]
    places += [f"in connection.jars ({', '.join(jars)})"] if jars else []
    places += [f"in connection.packages ({', '.join(packages)})"] if packages else []
    where = f"not {places[0]}" if len(places) == 1 else f"neither {' nor '.join(places)}"
    example = f" such as {driver.package}:<version>" if driver.package else ""
    return (
        f"the JDBC driver {' or '.join(classes)} is {where}. Name its jar, or a folder with it, in "
        f"connection.jars, or its Maven coordinate{example} in connection.packages; on Glue "
        "--extra-jars brings it, on EMR spark.jars"
    )


def _java(session: SparkSession) -> Any:
    return session._jvm  # noqa: SLF001 - PySpark has no other way

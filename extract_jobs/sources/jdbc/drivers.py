"""JDBC drivers: which class a URL needs, how it is found, and its properties.

https://jdbc.postgresql.org/documentation/use/
https://learn.microsoft.com/sql/connect/jdbc/setting-the-connection-properties
https://docs.oracle.com/en/database/oracle/oracle-database/23/jajdb/oracle/jdbc/OracleConnection.html
https://docs.aws.amazon.com/redshift/latest/mgmt/jdbc20-configuration-options.html
https://mariadb.com/kb/en/about-mariadb-connector-j/
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from extract_jobs.connections import DatabaseConnection
from extract_jobs.errors import ConfigError
from extract_jobs.sources.jdbc.dialects import (
    DERBY,
    H2,
    HSQLDB,
    MYSQL,
    ORACLE,
    PLAIN,
    POSTGRES,
    REDSHIFT,
    SQLSERVER,
    Dialect,
)

_MYSQL_PROPERTIES = {
    "connectTimeout": "{milliseconds}",
    "socketTimeout": "{stall_milliseconds}",
    "sessionVariables": "time_zone='+00:00',sql_select_limit=18446744073709551615",
    # Rows as they arrive instead of the whole result; required for `fetchsize`.
    "useCursorFetch": "true",
    # TINYINT(1) holds more than true and false, and YEAR is not a date.
    "tinyInt1isBit": "false",
    "yearIsDateType": "false",
    "tcpKeepAlive": "true",
}
_LONGEST = 2**31 - 1
"""Drivers read times as 32-bit integers."""
_POSTGRES_TLS = {"sslmode": "{sslmode}"}


@dataclass(frozen=True)
class Driver:
    """The driver of some URLs.

    Attributes:
        prefix: Start of its URLs, after ``jdbc:``.
        classes: Classes of the driver, the likeliest first.
        dialect: Its database's dialect.
        properties: Default properties. ``{seconds}`` and ``{milliseconds}`` are the time for
            connecting, ``{stall_seconds}`` and ``{stall_milliseconds}`` that for each wait
            afterwards; ``{sslmode}`` is the connection's.
        tls: Additional properties if ``sslmode`` requires TLS (not ``prefer``).
        session: The statement that a session begins with, unless ``session_init`` is given.
        refuses_hidden_rows: First statement of a session, after which the server refuses a SELECT
            if policies hide rows from the user. None if there is no such statement.
        url: URL for a host, port and database; None if only a configured URL works.
        package: Maven package of its jar, for messages.
    """

    prefix: str
    classes: tuple[str, ...]
    dialect: Dialect
    properties: Mapping[str, str] = field(default_factory=dict)
    tls: Mapping[str, str] = field(default_factory=dict)
    session: str | None = None
    refuses_hidden_rows: str | None = None
    url: str | None = None
    package: str | None = None


DRIVERS = (
    Driver(
        "postgresql:",
        ("org.postgresql.Driver",),
        POSTGRES,
        {
            "connectTimeout": "{seconds}",
            "socketTimeout": "{stall_seconds}",
            "loginTimeout": "{seconds}",
            "tcpKeepAlive": "true",
            "ApplicationName": "extract-jobs",
            # Spark switches autocommit off, since otherwise the driver would fetch all rows at
            # once; in a transaction this setting refuses writes.
            "readOnly": "true",
        },
        _POSTGRES_TLS,
        # Other servers speak the same protocol, and not all have the setting.
        refuses_hidden_rows="select set_config(name, 'off', false) from pg_settings"
        " where name = 'row_security'",
        package="org.postgresql:postgresql",
    ),
    Driver(
        "mysql:",
        ("com.mysql.cj.jdbc.Driver", "org.mariadb.jdbc.Driver"),
        MYSQL,
        _MYSQL_PROPERTIES,
        session="set session transaction read only",
        package="com.mysql:mysql-connector-j",
    ),
    Driver(
        "mariadb:",
        ("org.mariadb.jdbc.Driver",),
        MYSQL,
        # Spark chooses MySQL's quotes only by the URL: see `url_for_spark`.
        {**_MYSQL_PROPERTIES, "permitMysqlScheme": "true"},
        session="set session transaction read only",
        package="org.mariadb.jdbc:mariadb-java-client",
    ),
    Driver("h2:", ("org.h2.Driver",), H2, package="com.h2database:h2"),
    Driver(
        "hsqldb:",
        ("org.hsqldb.jdbc.JDBCDriver", "org.hsqldb.jdbcDriver"),
        HSQLDB,
        session="set session characteristics as transaction read only",
        package="org.hsqldb:hsqldb",
    ),
    Driver(
        "derby:",
        ("org.apache.derby.jdbc.EmbeddedDriver", "org.apache.derby.iapi.jdbc.AutoloadedDriver"),
        DERBY,
        package="org.apache.derby:derby",
    ),
    Driver(
        "sqlserver:",
        ("com.microsoft.sqlserver.jdbc.SQLServerDriver",),
        SQLSERVER,
        {
            "loginTimeout": "{seconds}",
            "socketTimeout": "{stall_milliseconds}",
            "applicationName": "extract-jobs",
            # Rows as they arrive; the driver's default, which a data source may have changed.
            "responseBuffering": "adaptive",
            "encrypt": "true",
        },
        session="set lock_timeout 60000",
        url="jdbc:sqlserver://{host}:{port};databaseName={{{database}}}",
        package="com.microsoft.sqlserver:mssql-jdbc",
    ),
    Driver(
        "oracle:",
        ("oracle.jdbc.OracleDriver", "oracle.jdbc.driver.OracleDriver"),
        ORACLE,
        {
            "oracle.net.CONNECT_TIMEOUT": "{milliseconds}",
            "oracle.jdbc.ReadTimeout": "{stall_milliseconds}",
            "oracle.jdbc.mapDateToTimestamp": "true",
            "oracle.jdbc.timezoneAsRegion": "false",
        },
        url="jdbc:oracle:thin:@//{host}:{port}/{database}",
        package="com.oracle.database.jdbc:ojdbc11",
    ),
    Driver(
        "redshift:",
        ("com.amazon.redshift.Driver", "com.amazon.redshift.jdbc42.Driver",
         "com.amazon.redshift.jdbc.Driver"),
        REDSHIFT,
        {
            "connectTimeout": "{seconds}",
            "socketTimeout": "{stall_seconds}",
            "tcpKeepAlive": "true",
            "ApplicationName": "extract-jobs",
            "readOnly": "true",
            # How much of a result the driver may buffer; its default is a gigabyte.
            "fetchRingBufferSize": "64M",
        },
        _POSTGRES_TLS,
        url="jdbc:redshift://{host}:{port}/{database}",
        package="com.amazon.redshift:redshift-jdbc42",
    ),
)  # fmt: skip
UNKNOWN = Driver("", (), PLAIN)


def driver_of(url: str) -> Driver:
    """Return the driver of a URL."""
    rest = url[len("jdbc:") :].lower()
    return next((driver for driver in DRIVERS if rest.startswith(driver.prefix)), UNKNOWN)


def url_of(connection: DatabaseConnection) -> str:
    """Return the JDBC URL of a connection.

    Raises:
        ConfigError: It has no URL, and none can be built from host, port and database.
    """
    if connection.url:
        return connection.url
    known = next((d for d in DRIVERS if d.prefix == f"{connection.engine}:"), UNKNOWN)
    if known.url is None:
        raise ConfigError(f"connection.url is needed for source.type {connection.engine}")
    host = f"[{connection.host}]" if ":" in connection.host else connection.host
    database = connection.database
    if "{{{" in known.url:
        database = database.replace("}", "}}")
    elif not all(c.isalnum() or c in "_-.$#" for c in database):
        raise ConfigError(
            f"connection.database {database!r} is unsafe in a URL: set connection.url"
        )
    return known.url.format(host=host, port=connection.port, database=database)


def url_for_spark(url: str) -> str:
    """Return the URL for Spark.

    Spark quotes names as the URL's database does, but does not know ``jdbc:mariadb:``: it would put
    names in double quotes, which make them text there.
    """
    prefix = "jdbc:mariadb:"
    if not url.lower().startswith(prefix):
        return url
    rest = url[len(prefix) :]
    if "permitmysqlscheme" not in rest.lower():
        rest += ("&" if "?" in rest else "?") + "permitMysqlScheme"
    return f"jdbc:mysql:{rest}"


def driver_properties(connection: DatabaseConnection, driver: Driver) -> dict[str, str]:
    """Return the driver's properties: the defaults, overridden by the configured ones."""
    tls = driver.tls if connection.sslmode != "prefer" and not connection.url else {}
    words = {
        "seconds": str(connection.connect_timeout_seconds),
        "milliseconds": str(connection.connect_timeout_seconds * 1000),
        "stall_seconds": str(min(_LONGEST, math.ceil(connection.stall_seconds))),
        "stall_milliseconds": str(min(_LONGEST, math.ceil(connection.stall_seconds * 1000))),
        "sslmode": connection.sslmode,
    }
    known = {key: value.format(**words) for key, value in {**driver.properties, **tls}.items()}
    if tls and connection.sslrootcert not in (None, "system"):
        known["sslrootcert"] = str(connection.sslrootcert)
    configured = {key.lower() for key in connection.properties}
    return {k: v for k, v in known.items() if k.lower() not in configured} | connection.properties


def jar_files(jars: Sequence[str]) -> list[str]:
    """Return the jars that ``connection.jars`` names: files, all of a folder, or URIs.

    Raises:
        ConfigError: A file or folder does not exist, or the folder has no jar.
    """
    found = []
    for name in jars:
        path = Path(name)
        if "://" in name or path.is_file():
            found.append(name)
        elif inside := sorted(path.glob("*.jar")):
            found += map(str, inside)
        else:
            what = "has no jar in it" if path.is_dir() else "is not there"
            raise ConfigError(f"connection.jars: {name!r} {what}")
    return found

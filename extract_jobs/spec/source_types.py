"""The types of source: built-in ones, and those that installed packages register.

A package registers a source with an entry point of the group ``extract_jobs.sources``: its name is
the value of ``source.type``, and it loads a `SourceRegistration`. Built-in types are a table here,
not entry points, because the archives that Lambda and EMR unpack have no package metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Annotated, Any, cast

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from extract_jobs.errors import ConfigError

GROUP = "extract_jobs.sources"


@dataclass(frozen=True)
class SourceRegistration:
    """What configs are checked against for a type of source; does not import the source.

    Attributes:
        opens: ``package.module:Class.open``: what returns a `extract_jobs.sources.Source` of a
            spec. Imported when a source is opened.
        takes: Fields of a `ConnectionSpec` that it uses.
        needs: The required one of them; None leaves that to the source.
        where: The dialect of ``where``, as `extract_jobs.spec.predicates` names it; None if the
            source has no ``where``.
        strategies: Values of ``split.strategy`` that it supports; None leaves that to the source.
        on_spark: Whether ``opens`` is also given the caller's Spark session, or None.
        lists: ``package.module:function``: what returns the `ListedTable`s of a `ConnectionSpec`,
            for configs that take tables by a pattern; None if the source has no such list.
    """

    opens: str
    takes: frozenset[str]
    needs: str | None = None
    where: str | None = None
    on_spark: bool = False
    strategies: tuple[str, ...] | None = None
    lists: str | None = None

    def lister(self) -> Callable[..., Any]:
        """Import what ``lists`` names, which is not None."""
        assert self.lists is not None
        return _imported(self.lists)

    def opener(self) -> Callable[..., Any]:
        """Import what ``opens`` names."""
        return _imported(self.opens)


def _imported(place: str) -> Callable[..., Any]:
    module, _, path = place.partition(":")
    found: Any = import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return cast(Callable[..., Any], found)


_SECRETS = frozenset({"secret_id", "url", "url_env", "ssm_parameter", "password_env", "user"})
_TIMEOUT = frozenset({"connect_timeout_seconds"})
_SERVER = _SECRETS | _TIMEOUT | {"host", "port", "database", "sslmode", "sslrootcert"}
_CERTIFICATE = frozenset({"sslcert", "sslkey"})
_IAM = frozenset({"auth", "region"})
_DRIVER = frozenset({"driver", "jars", "packages", "properties", "session_init"})


def _by_jdbc(takes: frozenset[str], where: str) -> SourceRegistration:
    opens = "extract_jobs.sources.jdbc.source:JdbcSource.open"
    strategies = ("auto", "range", "hash", "rowid", "none")
    return SourceRegistration(
        opens,
        takes | _DRIVER | {"stall_timeout"},
        where=where,
        on_spark=True,
        strategies=strategies,
    )


BUILT_IN: Mapping[str, SourceRegistration] = {
    "postgres": SourceRegistration(
        "extract_jobs.sources.postgres.source:PostgresSource.open",
        _SERVER | _CERTIFICATE | _IAM | {"pooled", "stall_timeout"},
        where="postgres",
        strategies=("auto", "ctid", "range", "none"),
        lists="extract_jobs.sources.postgres.listing:list_tables",
    ),
    "mysql": SourceRegistration(
        "extract_jobs.sources.mysql.source:MysqlSource.open",
        _SERVER | _CERTIFICATE | _IAM | {"pooled", "stall_timeout"},
        where="mysql",
        strategies=("auto", "range", "none"),
        lists="extract_jobs.sources.mysql.listing:list_tables",
    ),
    "sqlite": SourceRegistration(
        "extract_jobs.sources.sqlite.source:SqliteSource.open",
        _TIMEOUT | {"path"},
        needs="path",
        where="sqlite",
        strategies=("auto", "rowid", "range", "none"),
        lists="extract_jobs.sources.sqlite.listing:list_tables",
    ),
    "sqlserver": _by_jdbc(_SERVER, "tsql"),
    "oracle": _by_jdbc(_SERVER, "oracle"),
    "redshift": _by_jdbc(_SERVER | _IAM, "redshift"),
    "jdbc": _by_jdbc(_SECRETS | _TIMEOUT, "generic"),
    "files": SourceRegistration(
        "extract_jobs.sources.files.source:FilesSource.open",
        frozenset({"uri"}),
        needs="uri",
        strategies=("auto", "none"),
    ),
}
"""By ``source.type``."""


@cache
def registrations() -> Mapping[str, SourceRegistration]:
    """Return every type of source; built-in types are never replaced.

    Raises:
        ConfigError: An installed package registers something that is not a `SourceRegistration`.
    """
    found = dict(BUILT_IN)
    for entry in entry_points(group=GROUP):
        loaded = entry.load()
        if not isinstance(loaded, SourceRegistration):
            raise ConfigError(
                f"the entry point {entry.name} of {GROUP} is {entry.value}, which is not a "
                "SourceRegistration"
            )
        found.setdefault(entry.name, loaded)
    return found


def registration(source_type: str) -> SourceRegistration:
    """Return a type of source by its name, which a spec has checked."""
    return registrations()[source_type]


def _known(source_type: str) -> str:
    known = [*registrations()]
    if source_type not in known:
        expected = f"{', '.join(known[:-1])} or {known[-1]}"
        # Has the error type of pydantic's own Literal, so that it is reported in the same way.
        raise PydanticCustomError(
            "literal_error", "Input should be {expected}", {"expected": expected}
        )
    return source_type


SourceType = Annotated[
    str,
    AfterValidator(_known),
    # Editors complete the built-in types; other names are strings to them.
    WithJsonSchema({"anyOf": [{"enum": [*BUILT_IN]}, {"type": "string"}]}),
]
"""A name in `registrations`."""

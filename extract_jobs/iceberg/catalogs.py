"""Connects to the catalog that a spec names, with the errors of all catalogs mapped to ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract_jobs.errors import ConfigError, WriteFailed
from extract_jobs.spec.parts import CatalogSpec
from extract_jobs.storage import OpenStorage

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

CATALOG_NAME = "default"
"""The catalog's name, by which a SQLite catalog tells the tables of several catalogs apart."""
_PASSING = (
    "Throttl", "TooManyRequests", "RequestLimitExceeded", "SlowDown", "OperationTimeout",
    "InternalService", "InternalServer", "InternalFailure", "ServiceUnavailable",
    "ConcurrentModification",
)  # fmt: skip


def open_catalog(spec: CatalogSpec, open_storage: OpenStorage, *, create: bool) -> Catalog | None:
    """Connect to a catalog.

    pyiceberg's own configuration, in files and in the environment, is not read.

    Args:
        spec: The catalog.
        open_storage: How metadata is read and written.
        create: Whether to create a SQLite catalog that does not exist.

    Returns:
        The catalog; None if it does not exist.

    Raises:
        ConfigError: pyiceberg is not installed, or lacks what the catalog needs; or the catalog
            refused.
        WriteFailed: The catalog cannot be reached.
    """
    try:
        import pyiceberg.io.pyarrow

        if spec.path is not None:
            import pyiceberg.catalog.sql  # noqa: F401  workers on AWS have no SQLAlchemy
    except ImportError as error:
        raise ConfigError(
            f"target.format iceberg needs pyiceberg ({error.name} is missing): install "
            "'extract-jobs[iceberg]'"
        ) from error
    if spec.path is not None and not create and not Path(spec.path).exists():
        return None
    from extract_jobs.iceberg.files import OPEN_STORAGE, StorageFiles

    # A table's own properties could otherwise name any class to load.
    def our_files(*_: Any, **__: Any) -> StorageFiles:
        return StorageFiles({OPEN_STORAGE: open_storage})

    with catalog_errors(spec, "opening"):
        catalog = _connect(
            spec,
            {
                "py-io-impl": f"{StorageFiles.__module__}.{StorageFiles.__qualname__}",
                OPEN_STORAGE: open_storage,
            },
        )
    catalog._load_file_io = our_files  # type: ignore[method-assign]  # noqa: SLF001
    return catalog


def _connect(spec: CatalogSpec, properties: dict[str, Any]) -> Catalog:
    if spec.url is not None:
        from extract_jobs.iceberg.rest import connect

        return connect(CATALOG_NAME, spec, properties)
    if spec.path is None:
        from pyiceberg.catalog.glue import GlueCatalog

        return GlueCatalog(CATALOG_NAME, _glue(), **properties)
    from pyiceberg.catalog.sql import SqlCatalog

    path = Path(spec.path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    return SqlCatalog(CATALOG_NAME, uri=f"sqlite:///{path}", **properties)


def _glue() -> Any:
    from botocore.config import Config

    from extract_jobs.storage.aws_errors import refuse_foreign_answers
    from extract_jobs.storage.aws_session import new_session

    bounds = Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 3})
    return refuse_foreign_answers(new_session().client("glue", config=bounds))


@contextmanager
def catalog_errors(spec: CatalogSpec, action: str) -> Iterator[None]:
    """Map what a catalog raises; Iceberg's own errors pass through.

    Args:
        spec: The catalog.
        action: What failed, for the message.

    Raises:
        ConfigError: The catalog refused, and would again.
        WriteFailed: A retry may help.
    """
    what = f"{action} {spec.database}.{spec.table} in the {spec.type} catalog"
    with _errors(spec, what):
        try:
            yield
        except FileNotFoundError as error:
            raise ConfigError(
                f"{what}: {error.args[0] if error.args else 'a file'} is gone, which the table "
                "names: restore it"
            ) from error


def _errors(spec: CatalogSpec, what: str) -> AbstractContextManager[None]:
    if spec.url is not None:
        from extract_jobs.iceberg.rest import rest_errors

        return rest_errors(what)
    return _glue_errors(what) if spec.path is None else _sqlite_errors(what, spec.path)


@contextmanager
def _glue_errors(what: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    from extract_jobs.storage.aws_errors import PASSES, passes, unanswered

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "?"))
        what += f": Glue refused {error.operation_name} ({code})"
        if passes(error):
            raise WriteFailed(f"{what}: {PASSES}") from error
        if any(word in code for word in _PASSING):
            raise WriteFailed(f"{what}; a retry is safe") from error
        raise ConfigError(f"{what}; the role needs glue:{error.operation_name}") from error
    except BotoCoreError as error:
        raise unanswered(error, what) from error


@contextmanager
def _sqlite_errors(what: str, path: str) -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        raise WriteFailed(
            f"{what}: {path} could not be used ({type(error).__name__}); a retry is safe"
        ) from error

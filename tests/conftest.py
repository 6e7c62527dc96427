"""What every test stands on: an environment that cannot reach AWS, and the shared servers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import botocore.session
import pytest
from hypothesis import settings

from extract_jobs.engine.pandas_free import skip_pandas
from tests.support.java import QUICK_JAVA
from tests.support.memory_folder import parent_folder
from tests.support.sampling import EXHAUSTIVE

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytest_plugins = [
    "tests.support.artifacts",
    "tests.support.emulators",
    "tests.support.failures",
    "tests.support.mysql_servers",
    "tests.support.postgres",
    "tests.support.postgres_nodes",
    "tests.support.schedule",
    "tests.support.source_matrix",
]

NOWHERE = "http://127.0.0.1:9"
"""The discard port, where nothing listens: a client that was given no emulator fails at once."""

for name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[name]
os.environ.update(
    AWS_ACCESS_KEY_ID="testing",
    AWS_SECRET_ACCESS_KEY="testing",
    AWS_SESSION_TOKEN="testing",
    AWS_DEFAULT_REGION="eu-central-1",
    AWS_REGION="eu-central-1",
    AWS_CONFIG_FILE=os.devnull,
    AWS_SHARED_CREDENTIALS_FILE=os.devnull,
    AWS_EC2_METADATA_DISABLED="true",
    AWS_ENDPOINT_URL=NOWHERE,
    NO_PROXY="127.0.0.1,localhost",
    no_proxy="127.0.0.1,localhost",
    TZ="UTC",
)

# Where pytest makes folders of tests.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", parent_folder())
skip_pandas()  # as the command line and workers do
# Each extract has sessions of its own, and a session reads the descriptions of services anew.
botocore.session.create_loader = cache(botocore.session.create_loader)
settings.register_profile("quick", max_examples=50, deadline=None)
settings.register_profile("full", max_examples=500, deadline=None)
settings.load_profile("full" if EXHAUSTIVE else "quick")


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A local Spark with two cores, as a caller would hand it in; Java comes from its wheel."""
    from pyspark.sql import SparkSession

    from extract_jobs.spark.java import bundled_java_home
    from tests.support.iceberg_jars import iceberg_jars
    from tests.support.jdbc import jdbc_jars

    os.environ.update(
        JAVA_HOME=str(bundled_java_home()),
        PYSPARK_PYTHON=sys.executable,
        PYSPARK_DRIVER_PYTHON=sys.executable,
        SPARK_LOCAL_IP="127.0.0.1",
    )
    scratch: Path = tmp_path_factory.mktemp("spark")
    (scratch / "events").mkdir()
    settings = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraJavaOptions": (
            f"-Dderby.system.home={scratch} -Duser.timezone=UTC {QUICK_JAVA}"
        ),
        "spark.driver.memory": "1g",
        # A test looks for secrets in it.
        "spark.eventLog.enabled": "true",
        "spark.eventLog.compress": "false",
        "spark.eventLog.dir": (scratch / "events").as_uri(),
        "spark.jars": ",".join(map(str, (*jdbc_jars(), *iceberg_jars(scratch)))),
        "spark.local.dir": str(scratch / "local"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    builder = SparkSession.builder.master("local[2]").appName("extract-jobs tests")
    for key, value in settings.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    yield session
    session.stop()

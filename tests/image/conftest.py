"""The built image, and a source and a lake for its workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.containers import Builder, Image, prepared_dist


@pytest.fixture(scope="session")
def builder() -> Iterator[Builder]:
    made = Builder()
    prepared_dist()
    yield made
    made.close()


@pytest.fixture(scope="session")
def image(builder: Builder) -> Image:
    """The image of ECS."""
    print(builder.build("ecs", "localhost/extract-jobs:test"))
    return builder.image("localhost/extract-jobs:test")

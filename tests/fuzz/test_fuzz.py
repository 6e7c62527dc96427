"""A short run of the fuzzers, and all that they have found; `make fuzz` runs for hours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import targets
from tests.support.sampling import examples

# Arrow cannot hand a row that is no UTF-8 to the function that is told of it, and says so.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

FINDS = sorted((Path(__file__).parent / "finds").glob("*.*"))
SEED = 20261128


@pytest.mark.parametrize("name", targets())
def test_valid_input_is_taken(name: str, tmp_path: Path) -> None:
    """Or else the fuzzers would only ever see the first check."""
    target = targets()[name]
    for example in target.examples:
        assert target.try_one(example, tmp_path) == "taken"


@pytest.mark.parametrize("name", targets())
def test_broken_input_is_taken_or_refused(name: str, tmp_path: Path) -> None:
    target = targets()[name]
    for data in target.inputs(SEED, examples(target.quick)):
        target.try_one(data, tmp_path)


@pytest.mark.parametrize("find", FINDS, ids=lambda path: path.name)
def test_what_was_found_stays_mended(find: Path, tmp_path: Path) -> None:
    """A find is named after its target, as in ``csv.1``."""
    targets()[find.name.split(".")[0]].try_one(find.read_bytes(), tmp_path)

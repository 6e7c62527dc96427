"""Every history of a small pipeline with one fault, samples of those with more, and their truth.

What is true in the end, whatever has gone wrong, is in `Story._check`: the rows are there once or
not at all, each run is called what it is, the table's LATEST is its commit, and nothing is left.
The second half breaks the pipeline on purpose, one guard at a time, and shows that the model
notices each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from entrypoints import extract_config_manager
from extract_jobs import worker
from extract_jobs.commit.claims import Claims
from extract_jobs.commit.log import CommitLog
from extract_jobs.tracking import finished_attempt
from extract_jobs.tracking.retry_policy import Decision
from tests.support.histories import Choices, histories, random_history
from tests.support.pipeline_model import MODES, Model
from tests.support.sampling import EXHAUSTIVE, examples

pytestmark = pytest.mark.timeout(4 * 3600 if EXHAUSTIVE else 900)
WRITES = r"^(?!.* at (read|list|head|get_item|query|batch_get_item)\b)"
"""A process that is killed before it reads might as well be killed before its next write."""


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    return Model(monkeypatch)


def play(model: Model, choices: Choices, mode: str) -> None:
    try:
        model.play(choices, mode)
    except AssertionError as error:
        raise AssertionError(f"{mode}: {choices}: {error}") from error


@pytest.mark.parametrize("mode", MODES if EXHAUSTIVE else ["append"])
def test_whatever_goes_wrong_every_verdict_is_true_and_every_row_is_there_once(
    model: Model, mode: str
) -> None:
    """One fault at every write; in an exhaustive run two at any call: 30,000 histories."""
    kinds, faults = ("", 2) if EXHAUSTIVE else (WRITES, 1)
    played = sum(1 for _ in histories(lambda c: play(model, c, mode), faults, kinds))
    assert played > 40


def test_histories_of_many_faults(model: Model) -> None:
    likely, modes = (0.03, 0.06, 0.12, 0.25), tuple(MODES)
    for seed in range(examples(40)):
        play(model, random_history(seed, likely[seed % 4]), modes[seed % 3])


# --- what the model notices ----------------------------------------------------------------


def never_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The summary calls a run failed without a look at its report or commit log."""
    monkeypatch.setattr(
        finished_attempt,
        "_judge_what_can_be_read",
        lambda item, _: Decision("failed", error_class=item["job_error"]["Error"]),
    )


def no_adoption(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rerun does not know which failed runs it replaces."""
    read = worker.parse_spec
    monkeypatch.setattr(
        worker,
        "parse_spec",
        lambda *given: read(*given).model_copy(update={"reruns": ()}),
    )


def never_judged_and_no_adoption(monkeypatch: pytest.MonkeyPatch) -> None:
    never_judged(monkeypatch)
    no_adoption(monkeypatch)


def no_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is given up on in the tracking table alone, which its worker has read at its start."""
    monkeypatch.setattr(Claims, "stands", lambda *_: True)
    monkeypatch.setattr(CommitLog, "fence", lambda log, run_id, **_: log.find_run(run_id))


def failed_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was called failed while its commit stood is not looked at again."""
    monkeypatch.setattr(
        "entrypoints.reap_extract_job_runs.is_unresolved", lambda run: not run.ended
    )


def config_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call of the config manager reads the config as it is then."""

    def read(name: str, _folder: str, settings: Any, open_storage: Any) -> Any:
        uri = f"{settings.config_uri}/{name}.yml"
        raw = open_storage(uri).read(uri)
        return raw, extract_config_manager.load_config(raw, uri)

    monkeypatch.setattr(extract_config_manager, "_read_config", read)
    monkeypatch.setattr(extract_config_manager, "_keep", lambda *_: None)


@pytest.mark.parametrize(
    ("broken", "kinds", "faults", "noticed"),
    [
        (never_judged, "always fails", 1, "is published, and not called so"),
        (never_judged_and_no_adoption, "always fails", 1, r"\[1, 1, 2, 2, 3, 3, 4, 4, 5, 5\]"),
        (
            no_claims,
            "worker 1.1 .*: lost|before the handler: stopped",
            2,
            r"is published, and not called so|1, 1, 2, 2",
        ),
        (no_adoption, "worker 1.1 .*: killed|before the handler: stopped", 2, "1, 1, 2, 2"),
        (
            failed_for_good,
            "worker 1.1 .*: killed|before the handler: stopped",
            2,
            "is published, and not called so",
        ),
        (
            config_read_again,
            "manager .*answer is lost|another table",
            2,
            "2 announced",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_model_notices_a_missing_guard(
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[pytest.MonkeyPatch], None],
    kinds: str,
    faults: int,
    noticed: str,
) -> None:
    broken(monkeypatch)
    with pytest.raises(AssertionError, match=noticed):
        for _ in histories(lambda c: play(model, c, "append"), faults, kinds):
            pass

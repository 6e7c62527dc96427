"""Decides whether a run may still publish: once, with a put-if-absent, never by a clock.

``claims/<run_id>/<number>.json`` holds one of two records, whichever was written first:

- *stands*: the run's prepared commit is to be published. The publisher writes this first.
- *fenced*: nothing of the run will be published. Whoever gives up on a run writes this.

So an abandoned worker may sleep for any length of time: it cannot publish once its run is fenced.
After a voided commit the run uses its next number.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from extract_jobs.commit.record import Commit
from extract_jobs.commit.sealed import check_seal, seal
from extract_jobs.errors import ConfigError
from extract_jobs.storage import Storage, join

MAX_CLAIMS = 1_000
"""How many commits of one run may be voided."""


@dataclass(frozen=True)
class Claim:
    """What was decided for a run.

    Attributes:
        seq: The commit that stands; None where the run is fenced.
        commit_id: That commit's.
        fenced_by: Who gave up on the run; empty if a commit stands.
    """

    seq: int | None = None
    commit_id: str = ""
    fenced_by: str = ""


@dataclass(frozen=True)
class Claims:
    """The claims of one table's runs.

    Attributes:
        state: Storage of ``state_uri``.
        state_uri: The table's state folder.
        is_voided: Returns whether the commit with a sequence number was voided.
    """

    state: Storage
    state_uri: str
    is_voided: Callable[[int], bool]

    def stands(self, commit: Commit) -> bool:
        """Decide that a prepared commit is to be published, unless its run was fenced before."""
        decided = self._decide(commit.run_id, Claim(commit.seq, commit.commit_id), commit.commit_id)
        return decided.commit_id == commit.commit_id

    def fence(self, run_id: str, by: str) -> Claim:
        """Decide that nothing of a run is published any more, unless a commit of it stands.

        Args:
            run_id: The run.
            by: Who gives up on it, for the worker's error message.
        """
        return self._decide(run_id, Claim(fenced_by=by), None)

    def fenced_by(self, run_id: str) -> str:
        """Return who gave up on a run, empty if nobody did (read-only)."""
        for number in range(1, MAX_CLAIMS):
            uri = self._uri(run_id, number)
            raw = self.state.read(uri)
            if raw is None:
                return ""
            claim = _read(raw, uri)
            if claim.seq is None:
                return claim.fenced_by
        return ""

    def _decide(self, run_id: str, wanted: Claim, commit_id: str | None) -> Claim:
        """Return the stored claim; ``wanted`` is written if there is none yet."""
        for number in range(1, MAX_CLAIMS):
            uri = self._uri(run_id, number)
            claim = _read(self.state.put_if_absent(uri, _record(wanted)), uri)
            if claim.seq is None or claim.commit_id == commit_id or not self.is_voided(claim.seq):
                return claim
        raise ConfigError(
            f"{MAX_CLAIMS} commits of run {run_id} were voided, according to its claims in "
            f"{self.state_uri}: start a new run of the table"
        )

    def _uri(self, run_id: str, number: int) -> str:
        return join(self.state_uri, "claims", run_id, f"{number}.json")


def _record(claim: Claim) -> bytes:
    record: dict[str, Any] = {"version": 1, "fenced_by": claim.fenced_by}
    if claim.seq is not None:
        record = {"version": 1, "seq": claim.seq, "commit_id": claim.commit_id}
    return seal(record)


def _read(raw: bytes, uri: str) -> Claim:
    try:
        check_seal(raw)
        found = json.loads(raw)
        if found["version"] == 1 and isinstance(found.get("fenced_by"), str):
            return Claim(fenced_by=found["fenced_by"])
        seq, commit_id = found["seq"], found["commit_id"]
        if found["version"] == 1 and type(seq) is int and seq > 0 and isinstance(commit_id, str):
            return Claim(seq, commit_id)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise ConfigError(
        f"{uri} is not a claim of version 1: another version of extract-jobs wrote it, or it was "
        "damaged; restore it from the bucket's or folder's earlier versions"
    )

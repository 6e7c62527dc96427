"""What runs have pinned below a table's state folder, so that all attempts of a run agree.

``plans/<run_id>/<base_seq>.json`` holds a plan, ``objects/<run_id>/<base_seq>-<number>.parquet`` a
list of objects. Both are written once, with put-if-absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from extract_jobs.commit.record_check import is_objects_name, json_object, number_in
from extract_jobs.commit.sealed import seal, without_seal
from extract_jobs.errors import ConfigError
from extract_jobs.storage import Storage, join


@dataclass(frozen=True)
class Plans:
    """The pinned plans and lists of objects of one table.

    Attributes:
        state: Storage of ``state_uri``.
        state_uri: The table's state folder.
    """

    state: Storage
    state_uri: str

    def uri(self, run_id: str, base_seq: int) -> str:
        """Return where a run's plan for a base is."""
        return join(self.state_uri, "plans", run_id, f"{base_seq}.json")

    def read(self, run_id: str, base_seq: int) -> dict[str, Any] | None:
        """Return the plan that a run has pinned for a base, or None."""
        uri = self.uri(run_id, base_seq)
        raw = self.state.read(uri)
        return None if raw is None else _plan_of(raw, uri)

    def pin(self, run_id: str, base_seq: int, plan: dict[str, Any]) -> dict[str, Any]:
        """Write a run's plan for a base if it has none yet, and return the stored one."""
        uri = self.uri(run_id, base_seq)
        data = seal({"version": 1, **plan})
        return _plan_of(self.state.put_if_absent(uri, data), uri)

    def bases(self, run_id: str) -> Iterator[int]:
        """Yield the sequence numbers of the bases that a run has planned for."""
        for info in self.state.list(join(self.state_uri, "plans", run_id) + "/"):
            base_seq = number_in(info.uri)
            if base_seq is not None:
                yield base_seq

    def objects_name(self, run_id: str, base_seq: int, number: int) -> str:
        """Return where a run's list of objects for a base is, below the state folder."""
        return f"objects/{run_id}/{base_seq}-{number}.parquet"

    def read_objects(self, name: str) -> bytes | None:
        """Return a list of objects, or None.

        Raises:
            ConfigError: No list has that name.
        """
        if not is_objects_name(name):
            raise ConfigError(f"{self.state_uri}: a list of objects is damaged; restore it")
        return self.state.read(join(self.state_uri, name))

    def pin_objects(self, name: str, data: bytes) -> bytes:
        """Write a list of objects if there is none yet, and return the stored one."""
        return self.state.put_if_absent(join(self.state_uri, name), data)


def _plan_of(raw: bytes, uri: str) -> dict[str, Any]:
    found = json_object(raw, uri)
    if found.get("version") != 1:
        raise ConfigError(
            f"{uri} is not a plan of version 1: another version of extract-jobs wrote it, or it is "
            "damaged; start a new run"
        )
    return without_seal(found)

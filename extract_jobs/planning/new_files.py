"""Which objects a run reads, where a table's increments are objects: files new or replaced.

The list of a run is pinned for its base before anything is read, so that all its attempts extract
the same objects; the commit names the list, and with that one put-if-absent its rows and what is
known to be read become true together. So every object is read by exactly one commit, whatever
crashes, and however many attempts and runs there are at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Base
from extract_jobs.errors import ConfigError
from extract_jobs.sources import ObjectSource, Source
from extract_jobs.spec.extract_spec import ExtractSpec


@dataclass(frozen=True)
class Objects:
    """What a run reads of a source of objects.

    Attributes:
        name: Of the list, below the state folder: what the commit keeps.
        nothing_new: Whether it has nothing to be read.
    """

    name: str
    nothing_new: bool


def choose_objects(
    spec: ExtractSpec, log: CommitLog, base: Base, source: Source, now: datetime
) -> tuple[Source, Objects | None]:
    """Pin the objects that a run reads onto a base; of other sources nothing.

    A list that an earlier attempt pinned holds as long as all of its objects are unchanged: what
    is no longer there cannot be read, and a commit of the rest would lose nothing, so the run
    then continues with its own list.

    Args:
        spec: The run's spec.
        log: The table's log, whose newest commit has its outcome.
        base: What `CommitLog.finish_last` returned.
        source: The spec's source.
        now: The present, UTC.

    Returns:
        The source of these very objects, and where their list is, if there is any to be read.

    Raises:
        ConfigError: There is no object, or the list of the last commit is gone.
        ExtractError: As the source raises when it looks into objects.
    """
    if not isinstance(source, ObjectSource):
        return source, None
    before = _before(spec, log, base)
    number = 0
    while True:
        name = log.plans.objects_name(spec.run_id, base.seq, number)
        pinned = log.plans.read_objects(name)
        if pinned is None:
            found = source.choose(before, now)
            chosen = source.at(found)
            if chosen.has_nothing_new():
                # Attempts have nothing to agree on, and lists are never deleted.
                return chosen, Objects(name, nothing_new=True)
            # Another attempt may pin its list at the same instant: then that one holds.
            pinned = log.plans.pin_objects(name, found)
        elif not source.is_current(pinned):
            number += 1
            continue
        chosen = source.at(pinned)
        return chosen, Objects(name, chosen.has_nothing_new())


def _before(spec: ExtractSpec, log: CommitLog, base: Base) -> bytes | None:
    """Return the list of the last commit; None where its files are replaced, or it has none."""
    last = base.published
    if last is None or last.objects is None or spec.target.write_mode == "overwrite":
        return None
    found = log.plans.read_objects(last.objects)
    if found is None:
        raise ConfigError(
            f"{spec.state_uri}: {last.objects}, the list of objects that commit {last.seq} and "
            "those before it have read, is gone: restore it, or start the table over with another "
            "state_uri and target"
        )
    return found

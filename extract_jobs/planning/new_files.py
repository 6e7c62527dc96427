"""Which objects a run reads if a table's increments are objects: new and replaced files.

The list of a run is pinned for its base before anything is read, so that all its attempts extract
the same objects. The commit names the list, so one put-if-absent commits both its rows and the
objects that count as read. Every object is therefore read by exactly one commit, whatever crashes
and however many attempts and runs there are at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from extract_jobs.commit.log import CommitLog
from extract_jobs.commit.record import Base, Commit
from extract_jobs.errors import ConfigError
from extract_jobs.sources import ObjectsBefore, ObjectSource, Source
from extract_jobs.spec.extract_spec import ExtractSpec


@dataclass(frozen=True)
class Objects:
    """The objects that a run reads.

    Attributes:
        name: Name of the list, below the state folder, as the commit keeps it.
        nothing_new: Whether there is nothing to read.
    """

    name: str
    nothing_new: bool


def choose_objects(
    spec: ExtractSpec, log: CommitLog, base: Base, source: Source, now: datetime
) -> tuple[Source, Objects | None]:
    """Pin the objects that a run reads for a base. Other sources have none.

    A list that an earlier attempt pinned applies as long as all of its objects are unchanged.
    Otherwise the run pins a new list: an object that is gone cannot be read, and committing the
    rest loses nothing.

    Args:
        spec: The run's spec.
        log: The table's log, whose newest commit has its outcome.
        base: What `CommitLog.finish_last` returned.
        source: The spec's source.
        now: The present, UTC.

    Returns:
        The source of exactly these objects, and where their list is, if there are any.

    Raises:
        ConfigError: There is no object, or the list of the last commit is gone.
        ExtractError: As the source raises when it inspects objects.
    """
    if not isinstance(source, ObjectSource):
        return source, None
    before = _before(spec, log, base, source)
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
            pinned = log.plans.pin_objects(name, found)
            if pinned != found:
                continue  # another attempt has pinned its list first; that one applies
        elif not source.is_current(pinned):
            number += 1
            continue
        chosen = source.at(pinned)
        return chosen, Objects(name, chosen.has_nothing_new())


def _before(
    spec: ExtractSpec, log: CommitLog, base: Base, source: ObjectSource
) -> ObjectsBefore | None:
    """Return the last commit's list; None if it has none, or its files are replaced.

    A run that may keep some of them (`reuse`) needs to know what was found in their objects; if the
    list is gone or damaged, it looks into all objects again.
    """
    last = base.published
    if last is None or last.objects is None:
        return None
    if spec.target.write_mode != "overwrite":
        return _lists(spec, log, last, last.objects, source)
    if spec.reuse != "auto":
        return None
    try:
        return _lists(spec, log, last, last.objects, source)
    except ConfigError:
        return None


def _lists(
    spec: ExtractSpec, log: CommitLog, last: Commit, name: str, source: ObjectSource
) -> ObjectsBefore:
    """Return the stored lists of a commit.

    Raises:
        ConfigError: One is gone or damaged.
    """

    def read(name: str) -> bytes:
        found = log.plans.read_objects(name)
        if found is None:
            raise ConfigError(
                f"{spec.state_uri}: {name}, the list of objects read up to commit {last.seq}, is "
                "gone: restore it, or start the table over with another state_uri and target"
            )
        return found

    newest = read(name)
    whole = source.rests_on(newest)
    return ObjectsBefore(name, newest, None if whole is None else read(whole))

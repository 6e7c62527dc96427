"""What an attempt has staged outlives it: the next attempt of its run reads only the rest."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from extract_jobs.attempt.reuse import Reuse
from extract_jobs.commit.log import CommitLog
from extract_jobs.engine.run_splits import SplitResult
from extract_jobs.errors import CommitConflict, ExtractError, ReconcileFailed, StopRequested
from extract_jobs.spec.extract_spec import ExtractSpec
from extract_jobs.storage import WrittenFile

logger = logging.getLogger(__name__)


class Noted:
    """Notes ranges as soon as they are staged. Thread-safe."""

    def __init__(self, spec: ExtractSpec, log: CommitLog, base_seq: int) -> None:
        """Note nothing until `reuse` is set, to what is read by range.

        Args:
            spec: The run's.
            log: The table's.
            base_seq: What the run builds on.
        """
        self.reuse: Reuse | None = None
        self._spec, self._log, self._base_seq = spec, log, base_seq
        self._lock = threading.Lock()
        self._files: list[WrittenFile] = []
        self._ranges = 0

    def add(self, results: Sequence[SplitResult]) -> None:
        """Note ranges that are staged; a failure only costs the next attempt time."""
        reuse = self.reuse
        if reuse is None or len(reuse.spans) == 1:
            return
        for result in results:
            try:
                if not self._is_durable(reuse):
                    return
                staged = reuse.staged_range(result)
                self._log.staged.note(self._spec.run_id, self._base_seq, staged)
            except ExtractError as error:
                logger.warning("%s; if this attempt fails, the next reads that range again", error)
                return
            self._files.extend(result.files)
            self._ranges += 1

    def _is_durable(self, reuse: Reuse) -> bool:
        """Return whether no crash of the source undoes what was read; the first call may wait."""
        with self._lock:
            return reuse.pages.is_durable()

    def outliving(self, error: BaseException) -> list[WrittenFile]:
        """Return the staged files that stay for the next attempt after an error of this one."""
        interrupted = isinstance(error, StopRequested | KeyboardInterrupt)
        again = isinstance(error, ExtractError) and error.retryable
        if not (interrupted or again) or isinstance(error, CommitConflict | ReconcileFailed):
            return []
        if self._ranges:
            logger.warning(
                "%s: %d staged ranges are kept, and the next attempt of run %s resumes from them; "
                "on the command line, run it again with --run-id %s",
                self._spec.extract_table, self._ranges, self._spec.run_id, self._spec.run_id,
            )  # fmt: skip
        return self._files

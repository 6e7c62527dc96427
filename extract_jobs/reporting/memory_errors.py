"""The messages of services, Spark and operating systems for a worker that ran out of memory.

They are used where a worker left no report, and where Spark's driver lost an executor; who could
still report says `WorkerOutOfMemory` itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_API = "https://docs.aws.amazon.com"
_HADOOP = "https://github.com/apache/hadoop/blob/rel/release-3.3.6/hadoop-yarn-project/hadoop-yarn"
_SPARK = "https://github.com/apache/spark/blob/v3.5.6"


@dataclass(frozen=True, slots=True)
class Wording:
    """One such message.

    Attributes:
        pattern: Searched for in the text, without regard to case.
        example: Such a text.
        page: Where that text comes from.
    """

    pattern: str
    example: str
    page: str


WORDINGS = (
    Wording(
        "OutOfMemory",
        "OutOfMemoryError: Container killed due to memory usage",
        f"{_API}/AmazonECS/latest/developerguide/stopped-task-error-codes.html",
    ),
    Wording(
        "out of memory",
        "Command failed: the driver ran out of memory",
        "https://repost.aws/knowledge-center/glue-error-command-failed-exit-code",
    ),
    Wording(
        "memory usage exceeded configured memory",
        "Job failed. ExitCode: 137. Last few exceptions: Worker has been killed as memory usage "
        "exceeded configured memory size, consider increasing memory size",
        "EMR Serverless, as reports of failed jobs quote it",
    ),
    Wording(
        r"exceeding ((physical|virtual) )?memory limits",
        "Container killed by YARN for exceeding memory limits. 5.6 GB of 5.5 GB physical memory "
        "used",
        f"{_SPARK}/resource-managers/yarn/src/main/scala/org/apache/spark/deploy/yarn/"
        "YarnAllocator.scala",
    ),
    Wording(
        r"beyond (the )?'?(physical|virtual)'? memory limit",
        "Container [pid=1] is running 9B beyond the 'PHYSICAL' memory limit",
        f"{_HADOOP}/hadoop-yarn-server/hadoop-yarn-server-nodemanager (ContainersMonitorImpl)",
    ),
    Wording(
        r"exit ?(code|status)[\"':= ]*\s*52\b",
        "ExecutorLostFailure (executor 1 exited) Reason: Container marked as failed. Exit status: "
        "52",
        f"{_SPARK}/core/src/main/scala/org/apache/spark/util/SparkExitCode.scala",
    ),
    Wording(
        r"bigger than (local )?(spark\.driver\.)?maxResultSize",
        "Total size of serialized results of 9 tasks (1025 MiB) is bigger than "
        "spark.driver.maxResultSize (1024 MiB)",
        f"{_SPARK}/core/src/main/scala/org/apache/spark/scheduler/TaskSetManager.scala",
    ),
    Wording(
        "OOM ?Killed",
        "OOMKilled",
        f"{_API}/emr/latest/EMR-on-EKS-DevelopmentGuide, and Kubernetes in general",
    ),
    Wording(
        r"\bMemoryError\b",
        "Traceback (most recent call last): MemoryError",
        "https://docs.python.org/3/library/exceptions.html#MemoryError",
    ),
    Wording(
        "Cannot allocate memory",
        "os::commit_memory(0x1, 8, 0) failed; error='Cannot allocate memory' (errno=12)",
        "https://man7.org/linux/man-pages/man3/errno.3.html (ENOMEM)",
    ),
    Wording(
        "insufficient memory for the Java Runtime Environment",
        "There is insufficient memory for the Java Runtime Environment to continue.",
        "https://github.com/openjdk/jdk17u/blob/master/src/hotspot/share/utilities/vmError.cpp",
    ),
)
KILLED = Wording(
    r"exit(ed with)? ?(code|status)(\s+is)?[\"':= ]*\s*137\b",
    "Container from a bad node: container_1 on host: h. Exit status: 137. Diagnostics: Container "
    "killed on request. Exit code is 137",
    f"{_SPARK}/resource-managers/yarn/src/main/scala/org/apache/spark/deploy/yarn/"
    "YarnAllocator.scala",
)
"""Ended by SIGKILL, as by the kernel for lack of memory; believed if there is no other reason."""
TAKEN_AWAY = (
    Wording(
        "SpotInterruption|TerminationNotice",
        'StopCode: SpotInterruption; "ExitCode": 137',
        f"{_API}/AmazonECS/latest/APIReference/API_Task.html (stopCode)",
    ),
    Wording(
        "UserInitiated",
        'StopCode: UserInitiated; "ExitCode": 137',
        f"{_API}/AmazonECS/latest/APIReference/API_Task.html (stopCode)",
    ),
    Wording(
        r"spot (task|instance|capacity)\b.{0,40}(interrupt|terminat)",
        "Your Spot Task was interrupted.",
        f"{_API}/AmazonECS/latest/developerguide/stopped-task-error-codes.html",
    ),
)
"""Other reasons for SIGKILL: AWS takes the capacity back, or a person stops the task."""


def _any_of(wordings: tuple[Wording, ...]) -> re.Pattern[str]:
    return re.compile("|".join(wording.pattern for wording in wordings), re.IGNORECASE)


_OUT_OF_MEMORY, _TAKEN_AWAY, _KILLED = _any_of(WORDINGS), _any_of(TAKEN_AWAY), _any_of((KILLED,))


def is_taken_away(text: str) -> bool:
    """Return whether somebody ended a worker, through no fault of its own."""
    return bool(_TAKEN_AWAY.search(text))


def is_out_of_memory(text: str) -> bool:
    """Return whether a text says that a worker ran out of memory."""
    killed = bool(_KILLED.search(text)) and not is_taken_away(text)
    return killed or bool(_OUT_OF_MEMORY.search(text))

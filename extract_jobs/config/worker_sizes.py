"""The worker sizes that AWS offers: which exist, which one fits, and which one is next."""

from __future__ import annotations

import math
from typing import Literal, get_args

GlueWorker = Literal[
    "G.1X", "G.2X", "G.4X", "G.8X", "G.12X", "G.16X", "R.1X", "R.2X", "R.4X", "R.8X"
]
"""https://docs.aws.amazon.com/glue/latest/dg/add-job.html"""

FARGATE_MIB: dict[int, tuple[int, ...]] = {
    256: (512, 1024, 2048),
    512: tuple(range(1024, 4097, 1024)),
    1024: tuple(range(2048, 8193, 1024)),
    2048: tuple(range(4096, 16385, 1024)),
    4096: tuple(range(8192, 30721, 1024)),
    8192: tuple(range(16384, 61441, 4096)),
    16384: tuple(range(32768, 122881, 8192)),
}
"""Memory by CPU units: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html"""

EMR_GB: dict[int, tuple[int, ...]] = {
    1: tuple(range(2, 9)),
    2: tuple(range(4, 17)),
    4: tuple(range(8, 31)),
    8: tuple(range(16, 61, 4)),
    16: tuple(range(32, 121, 8)),
}
"""Memory by vCPU of EMR Serverless, Spark's overhead included:
https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/app-behavior.html"""

_OVERHEAD, _LEAST_OVERHEAD_GB = 0.1, 0.375
EMR_MOST_GB = int(EMR_GB[16][-1] / (1 + _OVERHEAD))
"""The most memory that Spark may request, so that its overhead fits too."""


def emr_container_gb(memory_gb: int) -> int:
    """Return what Spark's memory takes with Spark's usual overhead, in whole GB."""
    return math.ceil(memory_gb + max(memory_gb * _OVERHEAD, _LEAST_OVERHEAD_GB))


def emr_worker(memory_gb: int, at_least: int) -> tuple[int, int]:
    """Return the smallest EMR Serverless worker: its vCPUs, and its total memory in GB.

    A size that EMR Serverless does not offer is requested unchanged, and EMR reports the error: an
    item from before sizes were checked may have one, and so may an item for a cluster.

    Args:
        memory_gb: What Spark requests; its overhead is added.
        at_least: Minimum vCPUs.
    """
    need = emr_container_gb(memory_gb)
    fitting = (
        (cpus, size)
        for cpus, sizes in EMR_GB.items()
        for size in sizes
        if cpus >= at_least and size >= need
    )
    return next(fitting, (at_least, need))


def emr_problem(memory_gb: int, cores: int) -> str | None:
    """Return why EMR Serverless has no worker for an executor; None if it has one."""
    if cores not in EMR_GB:
        return f"executor_cores: {cores} is not one of {_listed(tuple(EMR_GB))}"
    need, least = emr_container_gb(memory_gb), EMR_GB[cores][0]
    if need < least:
        fits = next(gb for gb in range(memory_gb, 200) if emr_container_gb(gb) >= least)
        return (
            f"executor_cores: {cores} and executor_memory_gb: {memory_gb} fit no worker of EMR "
            f"Serverless, which gives {cores} vCPU at least {least} GB, Spark's overhead included: "
            f"set executor_memory_gb to {fits} or more, or lower executor_cores"
        )
    return None


def fargate_problem(cpu: int, memory: int) -> str | None:
    """Return why Fargate has no task of that size; None if it has one."""
    if cpu not in FARGATE_MIB:
        return f"cpu: {cpu} is not one of {_listed(tuple(FARGATE_MIB))}"
    sizes = FARGATE_MIB[cpu]
    if memory in sizes:
        return None
    if len(sizes) <= 4:
        expected = _listed(sizes)
    else:
        expected = f"{sizes[0]} to {sizes[-1]} in steps of {sizes[1] - sizes[0]}"
    return f"memory: {memory} is not a Fargate size for cpu: {cpu}; expected {expected}"


def bigger_glue_worker(worker: GlueWorker) -> GlueWorker:
    """Return the next worker type of the same family.

    The biggest type is returned unchanged, and so is a type that this version does not know.
    """
    kinds: tuple[GlueWorker, ...] = get_args(GlueWorker)
    if worker not in kinds:
        return worker
    ladder = [kind for kind in kinds if kind[0] == worker[0]]
    return ladder[min(ladder.index(worker) + 1, len(ladder) - 1)]


def bigger_fargate_task(cpu: int, memory: int) -> tuple[int, int]:
    """Return twice the memory, and the fewest CPU units that Fargate offers with it."""
    for units, sizes in FARGATE_MIB.items():
        fits = [size for size in sizes if size >= memory * 2]
        if units >= cpu and fits:
            return units, fits[0]
    return max((units, sizes[-1]) for units, sizes in FARGATE_MIB.items())


def _listed(values: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, values[:-1]))} or {values[-1]}"

"""The artifacts of `make dist`, built once for all tests."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from infra import build

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / ".tools" / "wheels"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[..., Path]:
    """Build missing parts, once for all processes; return their folder."""
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent
    dist = shared / "dist"

    def build_missing(*parts: str) -> Path:
        with (shared / "dist.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for part in parts:
                done = shared / f"dist.{part}"
                if not done.exists():
                    build.build(dist, WHEELS, (part,))
                    done.touch()
        return dist

    return build_missing

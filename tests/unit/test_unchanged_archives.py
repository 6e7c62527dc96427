"""Archives that have not changed are not read again."""

from __future__ import annotations

import os
import zipfile
import zipimport
from pathlib import Path

import pytest

from extract_jobs.engine import unchanged_archives


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The archives that were read again, in order."""
    found: list[str] = []

    def read(importer: zipimport.zipimporter) -> None:
        found.append(Path(importer.archive).name)

    kept = zipimport.zipimporter.invalidate_caches
    monkeypatch.setattr(zipimport.zipimporter, "invalidate_caches", kept)  # put back at the end
    monkeypatch.setattr(unchanged_archives, "_invalidate", read)
    return found


def test_an_archive_is_read_again_only_once_it_has_changed(
    tmp_path: Path, readings: list[str]
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m.py", "")
    first, second = zipimport.zipimporter(str(path)), zipimport.zipimporter(str(path))
    unchanged_archives.keep_unchanged_archives()
    unchanged_archives.keep_unchanged_archives()
    for importer in (first, first, second, second):
        importer.invalidate_caches()
    assert readings == ["a.zip"] * 2
    os.utime(path, (1, 1))
    first.invalidate_caches()
    assert readings == ["a.zip"] * 3
    path.unlink()
    first.invalidate_caches()
    first.invalidate_caches()
    assert readings == ["a.zip"] * 5

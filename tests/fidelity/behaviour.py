"""How tools behave while the source changes and processes die: the page's part on it."""

from __future__ import annotations

from pathlib import Path


def behaviour_section(kept: Path) -> str:
    """Return the section, or nothing if nothing was measured."""
    note = kept / "behaviour.md"
    return note.read_text("utf-8") if note.exists() else ""

"""The docs as a site: every page is in the navigation, every link and anchor leads somewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOADED = re.compile(
    r'<(?:script|img|iframe)\b[^>]* src="(https?:[^"]+)'
    r'|<link\b[^>]* rel="(?:stylesheet|preconnect)"[^>]* href="(https?:[^"]+)'
    r'|<link\b[^>]* href="(https?:[^"]+)"[^>]* rel="(?:stylesheet|preconnect)'
)


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Build the site with the project's own settings, without a network."""
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    def built(**given: object) -> Path:
        site = tmp_path / "site"
        build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(site), **given))
        return site

    return built


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(
    build: Callable[..., Path],
) -> None:
    """Takes some seconds: it renders every page."""
    pages = list(build().glob("*.html"))
    assert {page.stem for page in pages} == {"404", *(p.stem for p in (ROOT / "docs").glob("*.md"))}
    elsewhere = [found.groups() for page in pages for found in LOADED.finditer(page.read_text())]
    assert elsewhere == []


def test_dead_links_are_errors(
    build: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from mkdocs.exceptions import Abort

    (tmp_path / "docs").mkdir()
    dead = ["gone.md", "index.md#gone", "/index.md", "../README.md"]
    links = "".join(f"[dead]({link})\n" for link in dead)
    (tmp_path / "docs" / "index.md").write_text(f"# Page\n\n{links}")
    with pytest.raises(Abort):
        build(docs_dir=str(tmp_path / "docs"), nav=["index.md"], plugins=[], theme="mkdocs")
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [link for link in dead if any(f"'{link}'" in text for text in said)] == dead


def test_the_links_of_the_readme_lead_somewhere() -> None:
    from pymdownx.slugs import slugify

    slug = slugify(case="lower")
    links = re.findall(r"\]\(((?!https?:)[^)]+)\)", (ROOT / "README.md").read_text())
    assert len(links) > 20
    for link in links:
        name, _, anchor = link.partition("#")
        page = ROOT / name
        assert page.is_file(), link
        heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
        assert not anchor or anchor in {slug(head, "-") for head in heads}, link

"""The page on architecture is held against the tree: stations, their order, files and names."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "extract_jobs"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
STATIONS = PAGE.partition("## Stations")[2].partition("## Where to add")[0]
CELLS = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ")]
FILES = [
    (file, name)
    for cell in CELLS
    for file, name in re.findall(r"`([\w/]+\.py)`(?: `([\w.]+)`)?", cell[1])
]


def in_tree() -> set[str]:
    found = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return found | {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}


def described() -> list[str]:
    """The stations in the order of their paragraphs."""
    paragraphs = re.findall(r"^(\*\*.*?)(?=\n\n)", STATIONS, re.DOTALL | re.MULTILINE)
    return [name for text in paragraphs for name in re.findall(r"\*\*(\w+)\*\*", text)]


def test_every_station_has_one_paragraph() -> None:
    assert sorted(described()) == sorted(in_tree())


def test_stations_stand_in_the_order_of_the_layers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    [layers] = [one["layers"] for one in contracts if one["id"] == "layers"]
    depth = {name: at for at, line in enumerate(layers) for name in line.split(" | ")}
    order = [depth[name] for name in described()]
    assert order == sorted(order)


def test_the_picture_shows_every_station() -> None:
    picture = PAGE.partition("```\n")[2].partition("```")[0]
    words = set(re.findall(r"\w+", picture))
    everybodys = {"spec", "schema", "watermark", "errors", "parquet_footer"}
    assert in_tree() - words <= everybodys


@pytest.mark.parametrize(("file", "name"), FILES)
def test_files_and_names_of_the_tables_are_there(file: str, name: str) -> None:
    if "/" not in file:  # of each source
        places = [*PACKAGE.glob(f"sources/*/{file}")]
    else:
        places = [base / file for base in (PACKAGE, ROOT) if (base / file).is_file()]
    assert places, file
    body: list[ast.stmt] = ast.parse(places[0].read_text()).body
    for part in name.split(".") if name else ():  # a class and its method
        found = {getattr(node, "name", ""): node for node in body}
        assert part in found, f"{file} has no {name}"
        body = getattr(found[part], "body", [])


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []

"""Every command block of README and docs is executed, or listed below with the reason why not.

`extract-jobs` runs in this process, page by page, each in a folder of its own, with a real
PostgreSQL in the place of the pages' ``db.example.com``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from extract_jobs.cli import main
from tests.support.postgres import Server

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)

NOT_RUN = {
    "make ": "takes minutes, or needs an AWS account",
    "aws ": "needs an AWS account",
    "docker ": "needs a registry",
    "git clone ": "needs a network",
    "curl ": "needs a network",
    "python -m infra.deploy ": "needs an AWS account; tests/unit/test_deploy.py, on an emulator",
    "python -m infra.local ": "takes a minute; tests/e2e/test_local.py runs these commands",
    ". .venv/bin/activate": "changes the shell",
    "extract-jobs init sales.yml --from secret:": "needs Secrets Manager",
    "extract-jobs init erp.yml --from jdbc:": "needs that database, as in tests/spark/test_jdbc.py",
    "extract-jobs init drop.yml --from s3://": "needs a bucket",
}
"""Beginnings of commands that are not run here, and why."""
NO_COMMANDS = re.compile(r"[^a-z.]|table +state|public\.|fields @?\w+")
"""Begins lines of output, or of a language of their own."""
PICTURE = re.compile("[│▼]")
RUN_HERE = ("extract-jobs ", "export SALES_PASSWORD=")


def commands(page: Path) -> Iterator[str]:
    """Yield the lines of a page's blocks without a language, continued ones joined."""
    for _, language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language in ("", "sh", "bash", "console") and not PICTURE.search(block):
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip() and not NO_COMMANDS.match(line.strip()):
                    yield re.sub(r"\s+", " ", line.strip())


def is_run(line: str) -> bool:
    return line.startswith(RUN_HERE) and not line.startswith(tuple(NOT_RUN))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_line_is_run_or_listed(page: Path) -> None:
    unknown = [line for line in commands(page) if not line.startswith((*NOT_RUN, *RUN_HERE))]
    assert unknown == []


def test_the_list_names_nothing_that_is_gone() -> None:
    lines = [line for page in PAGES for line in commands(page)]
    assert [begin for begin in NOT_RUN if not any(one.startswith(begin) for one in lines)] == []


def written(page: Path, server: Server) -> None:
    """Write the config that a page begins with, unless its commands write one."""
    if page.name == "first-deployment.md":
        [text] = [
            block for _, language, block in BLOCK.findall(page.read_text()) if "version:" in block
        ]
        Path("sales.yml").write_text(text)
    elif page.name == "cli.md":
        assert (
            main(["init", "sales.yml", "--from", url(server), "--password-env", "SALES_PASSWORD"])
            == 0
        )
        config = Path("sales.yml").read_text()
        Path("sales.yml").write_text(
            config.replace("defaults:\n", "defaults:\n  keep_retired: 7d\n")
        )
        for _ in range(2):
            assert main(["run", "sales.yml", "public.customers"]) == 0


def url(server: Server) -> str:
    database = server.database.replace(" ", "%20")
    return f"postgresql://{server.user}@{server.host}:{server.port}/{database}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(map(is_run, commands(page)))], ids=lambda page: page.name
)
def test_a_page_runs_from_its_first_command_to_its_last(
    page: Path,
    pg_database: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pg_database.execute(
        "create table orders (id int primary key, created_at timestamp, updated_at timestamp)",
        "create table customers (id int primary key, email text)",
        "insert into orders select i, now(), now() from generate_series(1, 20) i",
        "insert into customers values (1, 'a@b.c')",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SALES_PASSWORD", pg_database.password)
    written(page, pg_database)
    for line in filter(is_run, commands(page)):
        if line.startswith("export "):
            continue  # set above
        here = re.sub(r"postgresql://reader@[\w.]+/sales", url(pg_database), line)
        here = here.replace("/tmp/try", str(tmp_path / "try")).replace("--to 41", "--to 1")
        code = main(shlex.split(here, comments=True)[1:])
        said = capsys.readouterr()
        assert code == 0, f"{line}: {said.err}"

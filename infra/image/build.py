"""Builds the image with docker, podman or buildah: ``make image``.

What `infra/Dockerfile` copies must already be in dist/. Labels name the version and the commit.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from extract_jobs import __version__
from infra.locked import ROOT, BuildFailed, run

TOOLS = ("docker", "podman", "buildah")
TARGETS = {"ecs": "extract-jobs", "emr": "extract-jobs-emr"}
"""Names of the images, by stage of the Dockerfile."""
FORMAT = dict.fromkeys(("podman", "buildah"), ("--format", "docker"))
"""Options per tool: OCI, the default format of some, has no health check."""
_BASE = "the base"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build one image; return 1 if no tool works, or the tool's exit code."""
    options = _parser().parse_args(arguments)
    tool = options.tool or find_tool()
    if tool is None:
        print(
            f"image: none of {', '.join(TOOLS)} works here: start Docker, or install podman or "
            "buildah (Debian: apt-get install buildah)",
            file=sys.stderr,
        )
        return 1
    tag = options.tag or f"{TARGETS[options.target]}:{__version__}"
    secrets = {"pip.conf": options.pip_conf, "ca.pem": options.ca}
    command = [
        tool, "build", "--platform", "linux/amd64", *FORMAT.get(tool, ()),
        "--file", "infra/Dockerfile", "--target", options.target, "--tag", tag,
        *(word for name, path in secrets.items() if path
          for word in ("--secret", f"id={name},src={path.resolve()}")),
        *(word for name, value in labels().items() for word in ("--build-arg", f"{name}={value}")),
        *options.more, ".",
    ]  # fmt: skip
    print(f"{tool} builds {tag}", flush=True)
    if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
        return code
    try:
        for size, step in layers(tool, tag):
            print(f"{size / 1e6:8.1f} MB  {step}")
    except BuildFailed as error:  # pushed and not kept here, or no room for a copy
        print(f"image: built, but the sizes of its layers are unknown: {error}", file=sys.stderr)
    return 0


def layers(tool: str, tag: str) -> list[tuple[int, str]]:
    """Return the bytes of each layer of an image and what made it, lowest layer first.

    They are read from the image as the tool saves it, because buildah does not show sizes of
    layers. That takes as much room in the temporary folder as the image has bytes.

    Raises:
        BuildFailed: The tool cannot save the image.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "image.tar"
        if tool == "buildah":
            run(tool, "push", "--quiet", tag, f"docker-archive:{saved}")
        else:
            run(tool, "save", "--output", str(saved), tag)
        with tarfile.open(saved) as archive:
            [image] = _json(archive, "manifest.json")
            history = _json(archive, image["Config"]).get("history", ())
            sizes = [archive.getmember(name).size for name in image["Layers"]]
    steps = [_step(each) for each in history if not each.get("empty_layer")]
    # Some bases have no history, or only part of it.
    unknown = [_BASE] * (len(sizes) - len(steps))
    return list(zip(sizes, [*unknown, *steps], strict=False))


def find_tool() -> str | None:
    """Return the first tool that is installed and works; a client without its server does not."""
    return next((tool for tool in TOOLS if shutil.which(tool) and _answers(tool)), None)


def labels() -> dict[str, str]:
    """Return the build arguments that become labels: version, commit, and the commit's time."""
    try:
        revision, seconds = run("git", "log", "-1", "--format=%H %ct").split()
        changed = run("git", "status", "--porcelain", "--untracked-files=no").strip()
    except (BuildFailed, OSError):  # only the sources, or no git
        return {"VERSION": __version__}
    return {
        "VERSION": __version__,
        "REVISION": f"{revision}-changed" if changed else revision,
        "CREATED": datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z"),
    }


def _parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.image.build",
        description="Arguments after -- are passed to the tool's build.",
    )
    parser.add_argument("--tool", choices=TOOLS, help="default: the first that works here")
    parser.add_argument("--target", choices=TARGETS, default="ecs", help="default: ecs")
    parser.add_argument("--tag", help="default: extract-jobs:<version>")
    parser.add_argument(
        "--pip-conf", type=Path, help="settings for pip during the build, not stored in the image"
    )
    parser.add_argument("--ca", type=Path, help="certificates that it names as /run/secrets/ca.pem")
    parser.add_argument("more", nargs="*", help=argparse.SUPPRESS)
    return parser


def _json(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    assert file is not None  # it is not a folder
    return json.load(file)


def _step(entry: dict[str, Any]) -> str:
    """Return what made a layer, shortened to one line."""
    step = re.sub(
        r"^/bin/sh -c (#\(nop\) )?|\b(dir|file|multi):\w+ in ", "", entry.get("created_by", "")
    )
    return " ".join(step.split())[:70] or _BASE


def _answers(tool: str) -> bool:
    ended = subprocess.run([tool, "info"], capture_output=True, check=False)
    return ended.returncode == 0


if __name__ == "__main__":
    sys.exit(main())

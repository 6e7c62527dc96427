"""Builds what is shipped: ``python -m infra.build``, or ``make dist``.

========================================  ====================================================
``extract_jobs-<version>-…whl``           the package alone, for every Python from 3.11
``extract_jobs-<version>.tar.gz``         its sources
``…-glue5.1.gluewheels.zip``              the wheel and what Glue 5.1 lacks, for
                                          ``--additional-python-modules``
``…-glue6.0.gluewheels.zip``              the same for Glue 6.0
``…-emr.tar.gz``                          an environment for ``spark.archives``, run by the
                                          machine's own Python 3.11
``lambda/<handler>.zip``                  the three functions
``entrypoints/*.py``                      the scripts that Glue, EMR and ECS start
``asl/extract_pipeline.asl.json``         the state machine
``image/requirements.txt``                what the image of ECS contains, with hashes
``image-build.txt``                       what builds it, with hashes
``SHA256SUMS``                            of all of these
========================================  ====================================================

Versions are those of ``uv.lock``. Wheel, sources and zips have the same bytes whenever they are
built; so does the archive, as long as the packages' wheels do.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from extract_jobs import __version__
from infra.archives import tree, write_checksums, write_tar, write_zip
from infra.locked import (
    ROOT,
    BuildFailed,
    Requirement,
    install,
    locked,
    provided,
    run,
    wheels,
    without,
)

NAME = f"extract_jobs-{__version__}"
GLUE_PYTHONS = {"5.1": "3.11", "6.0": "3.13"}
"""Python by version of Glue."""
EMR_PYTHON = "3.11"
LAMBDA_PYTHONS = ("3.13", "3.11")
"""The runtime that the template names, and the one that emulators run functions in.

One zip serves both, so that what is tested is what is shipped: the pure Python parts are the same,
and compiled modules have the version in their file names.
"""
HANDLERS = ("extract_config_manager", "handle_extract_job_run_status", "reap_extract_job_runs")
WORKERS = ("glue", "emr", "ecs")
# Iceberg tables in Glue's catalog. A catalog in SQLite is for a laptop.
_ICEBERG = ("--extra", "iceberg", "--no-emit-package", "sqlalchemy")
_IMAGE = ("--group", "spark3", "--group", "container")
# Part of the package that is only needed at a terminal.
_NOT_IN_LAMBDA = "extract_jobs/cli/"
_PYVENV = """\
home = /usr/bin
include-system-site-packages = false
version = 3.11
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build everything, or the named parts; return 1 if a tool failed."""
    parser = argparse.ArgumentParser(prog="python -m infra.build")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="default: dist")
    parser.add_argument(
        "--wheels", type=Path, default=ROOT / ".tools" / "wheels", help="cache of downloads"
    )
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    try:
        for path in build(options.out, options.wheels, options.parts or tuple(PARTS)):
            size = path.stat().st_size
            print(f"{size / 1e6:8.1f} MB  {path.relative_to(options.out)}")
    except BuildFailed as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    return 0


def build(out: Path, cache: Path, parts: Sequence[str]) -> list[Path]:
    """Build parts into a folder, with checksums of everything in the folder afterwards.

    Args:
        out: Created if missing.
        cache: Folder of downloaded wheels.
        parts: Keys of `PARTS`. Most need ``wheel``, which is built if it is missing.

    Returns:
        The files of the folder, checksums last.

    Raises:
        BuildFailed: A tool failed; the message has its output.
    """
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        PARTS[part](out, cache)
    sums = out / "SHA256SUMS"
    files = sorted(path for path in out.rglob("*") if path.is_file() and path != sums)
    write_checksums(sums, files)
    return [*files, sums]


def build_wheel(out: Path, _cache: Path) -> None:
    """Build the wheel and the sources; hatchling fixes times itself."""
    uv = str(Path(sys.executable).with_name("uv"))
    # A time in the caller's environment would change the bytes.
    environment = {k: v for k, v in os.environ.items() if k != "SOURCE_DATE_EPOCH"}
    run(uv, "build", "--quiet", "--out-dir", str(out), environment=environment)
    (out / ".gitignore").unlink(missing_ok=True)


def build_scripts(out: Path, _cache: Path) -> None:
    """Copy what is shipped unchanged: the state machine, and the workers' entrypoints.

    They go next to the wheel and not into it: PyPI has a package named entrypoints.
    """
    for name in ("asl/extract_pipeline.asl.json", *(f"entrypoints/{x}.py" for x in WORKERS)):
        (out / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, out / name)


def build_glue(out: Path, cache: Path) -> None:
    """Zip the wheels that each Glue version lacks, in the folder and with the list that Glue reads.

    https://docs.aws.amazon.com/glue/latest/dg/aws-glue-programming-python-libraries.html
    """
    own = _wheel(out, cache)
    for version, python in GLUE_PYTHONS.items():
        there = provided(ROOT / "infra" / "runtimes" / f"glue-{version}.txt")
        lacking = without(worker_requirements(python), there)
        found = wheels(lacking, python, cache / python)
        pins = [f"extract-jobs=={__version__}", *(f"{x.name}=={x.version}" for x in lacking)]
        listed = "".join(f"{pin}\n" for pin in sorted(pins)).encode()
        files: dict[str, Path | bytes] = {f"wheels/{path.name}": path for path in (own, *found)}
        files["wheels/requirements.txt"] = listed
        # The bare name is required: Glue recognizes such a zip by its double suffix.
        write_zip(out / f"{NAME}-glue{version}.gluewheels.zip", files, packed=False)


def build_emr(out: Path, cache: Path) -> None:
    """Pack an environment that runs wherever ``/usr/bin/python3.11`` is.

    It has the layout of ``python3.11 -m venv`` without scripts, whose first lines contain the path
    of the environment: so it may be unpacked anywhere. Spark brings PySpark.
    """
    own = _wheel(out, cache)
    with tempfile.TemporaryDirectory() as folder:
        packages = Path(folder) / "packages"
        install(worker_requirements(EMR_PYTHON), EMR_PYTHON, packages)
        _unpack(own, packages)
        shutil.rmtree(packages / "bin", ignore_errors=True)
        site = f"lib/python{EMR_PYTHON}/site-packages"
        files: dict[str, Path | bytes] = {**tree(packages, site), "pyvenv.cfg": _PYVENV.encode()}
        python = f"python{EMR_PYTHON}"
        links = {
            "bin/python": python,
            "bin/python3": python,
            f"bin/{python}": f"/usr/bin/{python}",
            # Amazon Linux looks for compiled packages in lib64.
            "lib64": "lib",
        }
        write_tar(out / f"{NAME}-emr.tar.gz", files, links)


def build_lambda(out: Path, _cache: Path) -> None:
    """Zip each handler with the package and the dependencies of both that Lambda lacks."""
    (out / "lambda").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, Path | bytes] = {
            name: path
            for name, path in tree(ROOT / "extract_jobs", "extract_jobs").items()
            if not name.startswith(_NOT_IN_LAMBDA)
        }
        # If both have a file, the first Python's counts.
        for python in reversed(LAMBDA_PYTHONS):
            target = Path(folder) / python
            install(locked("--only-group", "lambda", python=python), python, target)
            shutil.rmtree(target / "bin", ignore_errors=True)
            files |= tree(target)
        shared = Path(folder) / "shared.zip"
        write_zip(shared, files)
        for name in HANDLERS:
            handler: dict[str, Path | bytes] = {f"{name}.py": ROOT / "entrypoints" / f"{name}.py"}
            write_zip(out / "lambda" / f"{name}.zip", handler, begun=shared)


def build_image(out: Path, _cache: Path) -> None:
    """Write what `infra/Dockerfile` installs for ECS and what it builds with, with hashes."""
    (out / "image").mkdir(exist_ok=True)
    builders = locked("--only-group", "container-build", python=EMR_PYTHON)
    for name, pinned in (
        ("image/requirements.txt", image_requirements()),
        ("image-build.txt", builders),
    ):
        (out / name).write_text("".join(f"{requirement.line}\n" for requirement in pinned))


def worker_requirements(python: str) -> tuple[Requirement, ...]:
    """Return what a worker imports besides the package itself and Spark.

    Args:
        python: Version of its Python.
    """
    return locked(*_ICEBERG, python=python)


def image_requirements() -> tuple[Requirement, ...]:
    """Return what the image contains besides the package itself, including Spark and Java."""
    return locked(*_ICEBERG, *_IMAGE, python=EMR_PYTHON)


def _wheel(out: Path, cache: Path) -> Path:
    """Return the package's own wheel; build it if it is missing."""
    path = out / f"{NAME}-py3-none-any.whl"
    if not path.exists():
        build_wheel(out, cache)
    return path


def _unpack(wheel: Path, folder: Path) -> None:
    """Install the package's own wheel into a folder; it has no dependencies left to install."""
    uv = str(Path(sys.executable).with_name("uv"))
    run(
        uv, "pip", "install", "--quiet", "--no-deps", "--offline", "--link-mode", "copy",
        "--python", sys.executable, "--target", str(folder), str(wheel),
    )  # fmt: skip


PARTS = {
    "wheel": build_wheel,
    "scripts": build_scripts,
    "glue": build_glue,
    "emr": build_emr,
    "lambda": build_lambda,
    "image": build_image,
}


if __name__ == "__main__":
    sys.exit(main())

"""Programs and jars from Debian packages, unpacked into .tools/debian and installed nowhere.

MariaDB and PgBouncer have no wheel, the JDBC drivers of the tests none either, and the wheel of
PostgreSQL lacks what a standby is made with. Any user can run this, root or not: apt's lists, cache
and locks are the folder's own, so that nothing of the system changes. Of the packages that the
named ones depend on, those come along that the system does not have.

``python -m tests.support.debian`` fetches once; it needs apt, the network and about 130 MB.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / ".tools" / "debian"
"""Where the packages are unpacked, as if it were ``/``."""

PROGRAMS = (
    "mariadb-server-core", "mariadb-client-core",
    "postgresql-15", "postgresql-client-15", "pgbouncer",
)  # fmt: skip
UNUSED = ("libllvm14",)
"""Large, and only needed for PostgreSQL's JIT, which the tests turn off."""
JARS = ("libpostgresql-jdbc-java", "libmariadb-java", "libh2-java", "libhsqldb-java")

_MISSING = (
    "{what} is missing from {root}: `make test` fetches it, as does python -m tests.support.debian"
)


def program(name: str) -> Path:
    """Return a program's file, to be run with `environment`."""
    for folder in ("usr/sbin", "usr/bin"):
        if (found := ROOT / folder / name).is_file():
            return found
    raise RuntimeError(_MISSING.format(what=name, root=ROOT))


def postgres(root: Path = ROOT) -> Path:
    """Return the folder of Debian's PostgreSQL, to be run with `environment`."""
    found = root / "usr/lib/postgresql/15"
    if not (found / "bin/postgres").is_file():
        raise RuntimeError(_MISSING.format(what="PostgreSQL 15", root=root))
    return found


def readable_root(directory: Path) -> Path:
    """Return `ROOT`, or a copy below a directory where not everybody can reach it."""
    if all(parent.stat().st_mode & 0o005 == 0o005 for parent in [ROOT, *ROOT.parents]):
        return ROOT
    copy = directory / "debian"
    for part in ("usr/lib", "usr/sbin", "usr/share/postgresql"):
        shutil.copytree(ROOT / part, copy / part, symlinks=True)
    return copy


def jar(name: str) -> Path:
    """Return a jar of /usr/share/java by its name without version, for example ``h2``."""
    found = ROOT / "usr/share/java" / f"{name}.jar"
    if not found.is_file():
        raise RuntimeError(_MISSING.format(what=found.name, root=ROOT))
    return found


def environment(root: Path = ROOT) -> dict[str, str]:
    """Return the environment in which a `program` finds its libraries."""
    folders = (root / "usr/lib", root / "lib")
    libraries = [str(path) for folder in folders for path in folder.glob("*-linux-gnu")]
    return {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
    }


def fetch() -> None:
    """Download and unpack; what was there is replaced only once everything has arrived.

    Raises:
        RuntimeError: There is no apt, or it failed; what it said has been printed.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise RuntimeError("the tests' MariaDB and JDBC drivers come from Debian packages: no apt")
    work = ROOT.with_name("debian.new")
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial", "packages", "root"):
        (work / folder).mkdir(parents=True)
    options = [
        f"Dir::State::Lists={work / 'lists'}",
        f"Dir::Cache={work / 'cache'}",
        "Debug::NoLocking=1",
        "APT::Sandbox::User=root",  # root would download as _apt, who cannot write here
        "Acquire::Retries=3",
        "Acquire::Languages=none",
    ]
    apt = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
    _run(*apt, "update")
    needed = _run(*apt, "--simulate", "--no-install-recommends", "install", *PROGRAMS)
    lacking = {line.split()[1] for line in needed.splitlines() if line.startswith("Inst ")}
    wanted = (lacking | set(PROGRAMS) | set(JARS)) - set(UNUSED)
    _run(*apt, "download", *sorted(wanted), cwd=work / "packages")
    for package in sorted((work / "packages").glob("*.deb")):
        _run("dpkg-deb", "--extract", str(package), str(work / "root"))
    shutil.rmtree(ROOT, ignore_errors=True)
    (work / "root").rename(ROOT)
    shutil.rmtree(work)


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode:
        sys.stderr.write(done.stdout)
        raise RuntimeError(f"{command[0]} failed with {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    fetch()

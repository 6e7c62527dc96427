"""Programs and jars from Debian packages, unpacked into .tools and installed nowhere.

MySQL, MariaDB, PgBouncer, Chromium and the tests' JDBC drivers have no wheels, and the wheel of
PostgreSQL lacks the programs for a standby. Any user can run this, root or not: apt's lists, cache
and locks are in a separate folder, so the system does not change.

``python -m tests.support.debian`` fetches everything once and prints the versions. It needs apt,
the network and about 320 MB.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / ".tools"
JARS = ("libpostgresql-jdbc-java", "libmariadb-java", "libh2-java", "libhsqldb-java")
UNUSED = ("libllvm14",)
"""Large, and only needed for PostgreSQL's JIT, which the tests turn off."""
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_ARCHIVE = "http://deb.debian.org/debian/"


@dataclass(frozen=True)
class Root:
    """Packages unpacked together, as if their folder were ``/``.

    Attributes:
        name: The folder's, below .tools.
        programs: Packages whose programs the tests run.
        jars: Packages of which only the jars are used, so their dependencies are not fetched.
        suite: Debian's suite that they come from, with everything they depend on, libc included;
            None is the system's own; then only what the system lacks is fetched.
    """

    name: str
    programs: tuple[str, ...]
    jars: tuple[str, ...] = ()
    suite: str | None = None

    @property
    def path(self) -> Path:
        """The folder."""
        return TOOLS / self.name

    def command(self, name: str) -> list[str]:
        """Return how to start a program, with `environment`.

        Raises:
            RuntimeError: It was not fetched.
        """
        for folder in ("usr/sbin", "usr/bin"):
            if (found := self.path / folder / name).is_file():
                break
        else:
            raise _missing(self.path, name)
        if self.suite is None:
            return [str(found)]
        # A newer libc must not reach programs of the system, so its loader gets the folders as
        # arguments, which no child inherits.
        libraries = self.path / f"usr/lib/{platform.machine()}-linux-gnu"
        [loader] = libraries.glob("ld-linux*.so.*")
        private = self.path / "usr/lib/mysql/private"
        return [str(loader), "--library-path", f"{libraries}:{private}", str(found)]

    @property
    def browser(self) -> Path:
        """The program of Debian's Chromium, to be run with `environment`.

        Raises:
            RuntimeError: It was not fetched.
        """
        found = self.path / "usr/lib/chromium/chromium"
        if not found.is_file():
            raise _missing(self.path, "Chromium")
        return found

    @property
    def environment(self) -> dict[str, str]:
        """The environment that a program is started in."""
        found = environment(self.path)
        if self.suite is not None:
            del found["LD_LIBRARY_PATH"]
        return found


SYSTEM = Root(
    "debian",
    (
        "mariadb-server-core", "mariadb-client-core",
        "postgresql-15", "postgresql-client-15", "pgbouncer",
    ),
    jars=JARS,
)  # fmt: skip
"""MariaDB, PostgreSQL and PgBouncer from the system's own Debian, and the jars."""
MYSQL = Root("debian-mysql", ("mysql-server-core", "mysql-client-core"), suite="sid")
"""The MySQL in Debian's development suite; no release has one."""
MARIADB = Root("debian-mariadb", ("mariadb-server-core", "mariadb-client-core"), suite="sid")
"""A later MariaDB than the system's."""
CHROMIUM = Root("debian-chromium", ("chromium",))
"""A browser for the pages that people look at."""
ROOTS = (SYSTEM, MYSQL, MARIADB, CHROMIUM)


def _missing(root: Path, what: str) -> RuntimeError:
    return RuntimeError(
        f"{what} is missing from {root}: `make test` fetches it, as does python -m "
        "tests.support.debian"
    )


def environment(root: Path = SYSTEM.path) -> dict[str, str]:
    """Return the environment in which the system's programs find libraries of a folder."""
    folders = (root / "usr/lib", root / "lib")
    found = [path for folder in folders for path in folder.glob("*-linux-gnu")]
    libraries = [str(part) for path in found for part in (path, path / "pulseaudio")]
    return {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
    }


def postgres(root: Path = SYSTEM.path) -> Path:
    """Return the folder of Debian's PostgreSQL, to be run with `environment`."""
    found = root / "usr/lib/postgresql/15"
    if not (found / "bin/postgres").is_file():
        raise _missing(root, "PostgreSQL 15")
    return found


def readable_root(directory: Path) -> Path:
    """Return the system's packages, or a copy below a directory where not all can reach them."""
    root = SYSTEM.path
    if all(parent.stat().st_mode & 0o005 == 0o005 for parent in [root, *root.parents]):
        return root
    copy = directory / "debian"
    for part in ("usr/lib", "usr/sbin", "usr/share/postgresql"):
        shutil.copytree(root / part, copy / part, symlinks=True)
    return copy


def jar(name: str) -> Path:
    """Return a jar of /usr/share/java by its name without version, for example ``h2``."""
    found = SYSTEM.path / "usr/share/java" / f"{name}.jar"
    if not found.is_file():
        raise _missing(SYSTEM.path, found.name)
    return found


def fetch(root: Root) -> list[str]:
    """Download and unpack; existing files are replaced only once everything has arrived.

    Returns:
        The names of the packages' files, which hold their versions.

    Raises:
        RuntimeError: There is no apt, or it failed; its output has been printed.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise RuntimeError("the tests' MySQL, MariaDB and JDBC drivers are Debian packages: no apt")
    work = root.path.with_name(f"{root.name}.new")
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial", "parts", "packages", "root"):
        (work / folder).mkdir(parents=True)
    options = [
        f"Dir::State::Lists={work / 'lists'}",
        f"Dir::Cache={work / 'cache'}",
        "Debug::NoLocking=1",
        "APT::Sandbox::User=root",  # root would download as _apt, who cannot write here
        "Acquire::Retries=3",
        "Acquire::Languages=none",
        *_suite_options(root, work),
    ]
    apt = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
    _run(*apt, "update")
    needed = _run(*apt, "--simulate", "--no-install-recommends", "install", *root.programs)
    lacking = {line.split()[1] for line in needed.splitlines() if line.startswith("Inst ")}
    # Scripts that nobody runs here.
    lacking = {name for name in lacking if name.partition("-")[0] != "perl"}
    wanted = (lacking | set(root.programs) | set(root.jars)) - set(UNUSED)
    _run(*apt, "download", *sorted(wanted), cwd=work / "packages")
    packages = sorted((work / "packages").glob("*.deb"))
    for package in packages:
        _run("dpkg-deb", "--extract", str(package), str(work / "root"))
    shutil.rmtree(root.path, ignore_errors=True)
    (work / "root").rename(root.path)
    shutil.rmtree(work)
    return [package.name for package in packages]


def _suite_options(root: Root, work: Path) -> list[str]:
    """Return options with which apt sees one suite, and nothing as installed."""
    if root.suite is None:
        return []
    status, sources = work / "status", work / "suite.sources"
    status.touch()
    sources.write_text(
        f"Types: deb\nURIs: {archive()}\nSuites: {root.suite}\nComponents: main\n"
        f"Signed-By: {_KEYRING}\n"
    )
    return [
        f"Dir::Etc::sourcelist={sources}",
        f"Dir::Etc::sourceparts={work / 'parts'}",
        f"Dir::State::status={status}",
    ]


def archive() -> str:
    """Return the mirror of Debian's archive that the system uses; Debian's own without one."""
    known = _run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    return next((uri for uri in known.splitlines() if uri.endswith("/debian/")), _ARCHIVE)


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
    for each in ROOTS:
        named = [name for name in fetch(each) if name.startswith(each.programs)]
        print(f"{each.name}: {', '.join(sorted(named))}")

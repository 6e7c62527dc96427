"""The container image for tests: built by buildah over Debian's own Python, and run by runc.

Neither needs a daemon. Docker and containerd start containers with runc too, so user, capabilities,
PID 1 and a read-only root are enforced by the kernel and not imitated.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from infra.locked import ROOT
from tests.support.debian import TOOLS
from tests.support.debian_root import debian_root, need, run

BASE = "docker.io/library/python:3.11-slim-bookworm"
"""The name under which the base is committed, which is the Dockerfile's own."""
BASE_PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates")


@dataclass(frozen=True)
class Image:
    """A built image, mounted.

    Attributes:
        name: Its tag.
        root: Its files.
        config: OCI's configuration: ``Env``, ``Entrypoint``, ``User``, ``Labels`` and more.
        layers: Digests of the layers' contents, lowest first.
        health: The command of its health check.
    """

    name: str
    root: Path
    config: dict[str, Any]
    layers: tuple[str, ...]
    health: tuple[str, ...]

    def environment(self) -> dict[str, str]:
        """Return the image's variables."""
        return dict(line.split("=", 1) for line in self.config["Env"])

    def start(
        self,
        folder: Path,
        arguments: Sequence[str],
        *,
        environment: dict[str, str],
        spill: Path,
        entrypoint: Sequence[str] | None = None,
    ) -> Container:
        """Start a container with a read-only root, the image's user and no capabilities.

        Args:
            folder: Folder for the container's configuration; created here.
            arguments: Arguments after the entrypoint.
            environment: Variables in addition to the image's.
            spill: Mounted at /spill; owned by the image's user.
            entrypoint: Replaces the image's.
        """
        folder.mkdir()
        (folder / "hosts").write_text("127.0.0.1 localhost worker\n")
        user, group = (int(x) for x in self.config["User"].split(":"))
        caps = ("bounding", "effective", "permitted", "inheritable", "ambient")
        variables = self.environment() | environment
        tmpfs = {"type": "tmpfs", "source": "tmpfs"}
        config = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user, "gid": group},
                "args": [*(entrypoint or self.config["Entrypoint"]), *arguments],
                "env": [f"{name}={value}" for name, value in variables.items()],
                "cwd": self.config["WorkingDir"],
                "capabilities": {kind: [] for kind in caps},
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.root), "readonly": True},
            "hostname": "worker",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", **tmpfs, "options": ["nosuid", "mode=755", "size=64k"]},
                {"destination": "/spill", "type": "bind", "source": str(spill),
                 "options": ["rbind", "rw"]},
                {"destination": "/etc/hosts", "type": "bind", "source": str(folder / "hosts"),
                 "options": ["rbind", "ro"]},
            ],
            # The network is the host's, where the tests' servers listen on 127.0.0.1.
            "linux": {"namespaces": [{"type": t} for t in ("pid", "ipc", "uts", "mount")]},
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        name = f"extract-{uuid.uuid4().hex[:12]}"
        process = subprocess.Popen(
            ["runc", "run", "--bundle", str(folder), name],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        return Container(name, process)


@dataclass(frozen=True)
class Container:
    """A running container; a context manager that ends it."""

    name: str
    process: subprocess.Popen[str]

    def stop(self) -> None:
        """Send SIGTERM to its PID 1."""
        self.signal("TERM")

    def signal(self, name: str) -> None:
        """Send a signal to its PID 1."""
        run("runc", "kill", self.name, name)

    def execute(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command beside its PID 1, as its user; return the exit code and what it printed."""
        ended = subprocess.run(
            ["runc", "exec", self.name, *command], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        return ended.returncode, ended.stdout

    def ended(self, seconds: float) -> tuple[int, str, str]:
        """Return its exit code, standard output and standard error, once it has ended by itself."""
        stdout, stderr = self.process.communicate(timeout=seconds)
        return self.process.returncode, stdout, stderr

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            subprocess.run(["runc", "kill", self.name, "KILL"], capture_output=True, check=False)
            self.process.wait(20)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


class Builder:
    """Builds images into its own storage below .tools."""

    def __init__(self) -> None:
        """Commit the base, unless it exists."""
        need("buildah", "runc", "debootstrap")
        self._folder = TOOLS / "containers"
        self._folder.mkdir(parents=True, exist_ok=True)
        storage = self._folder / "storage.conf"
        # Layers are stacked, which a file system that is itself a stack does not allow.
        stacked = run("stat", "--file-system", "--format=%T", str(self._folder)).strip()
        driver = "vfs" if stacked == "overlayfs" else "overlay"
        storage.write_text(
            f'[storage]\ndriver = "{driver}"\ngraphroot = "{self._folder}/graph"\n'
            f'runroot = "{self._folder}/run"\n'
        )
        self.environment = os.environ | {
            "CONTAINERS_STORAGE_CONF": str(storage),
            # No runtime's cgroups, mounts or user namespaces are needed for a build.
            "BUILDAH_ISOLATION": "chroot",
        }
        self._base()

    def buildah(self, *arguments: str) -> str:
        """Run buildah on this storage and return what it printed."""
        return run("buildah", *arguments, environment=self.environment).strip()

    def build(self, target: str, tag: str, *more: str) -> str:
        """Build a stage of `infra/Dockerfile` as `make image` does; return what that printed."""
        return run(
            sys.executable, "-m", "infra.image.build", "--tool", "buildah", "--target", target,
            "--tag", tag, *self._index(), "--", "--layers", "--pull-never", "--network", "host",
            *more, environment=self.environment,
        )  # fmt: skip

    def base(self, tag: str, *command: str) -> None:
        """Commit a base: ours, after running a command in it."""
        container = self.buildah("from", "--pull-never", BASE)
        self.buildah("run", container, "--", *command)
        self.buildah("commit", "--rm", container, tag)

    def image(self, tag: str) -> Image:
        """Return a built image, mounted; `close` unmounts it."""
        described = json.loads(self.buildah("inspect", "--type", "image", tag))
        shown, health = described["OCIv1"], described["Docker"]["config"].get("Healthcheck", {})
        container = self.buildah("from", "--pull-never", tag)
        root = Path(self.buildah("mount", container))
        kind, *command = health.get("Test", ["NONE"])
        assert kind in {"CMD", "NONE"}
        return Image(tag, root, shown["config"], tuple(shown["rootfs"]["diff_ids"]), tuple(command))

    def close(self) -> None:
        """Unmount everything."""
        self.buildah("rm", "--all")

    def _base(self) -> None:
        root = debian_root("bookworm", BASE_PACKAGES)
        if BASE in self.buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
            return
        container = self.buildah("from", "scratch")
        self.buildah("copy", container, str(root), "/")
        self.buildah("commit", "--rm", container, BASE)

    def _index(self) -> tuple[str, ...]:
        """Return options that let pip use the same index as here."""
        python = [sys.executable, "-m", "pip", "config", "get"]
        settings = {}
        for name in ("index-url", "cert"):
            for level in ("global", ":env:"):
                found = subprocess.run(
                    [*python, f"{level}.{name}"], capture_output=True, text=True, check=False
                )
                if found.returncode == 0:
                    settings[name] = found.stdout.strip()
        options: tuple[str, ...] = ()
        if certificates := settings.get("cert"):
            shutil.copyfile(certificates, self._folder / "ca.pem")
            settings["cert"] = "/run/secrets/ca.pem"
            options = ("--ca", str(self._folder / "ca.pem"))
        lines = [f"{name} = {value}\n" for name, value in settings.items()]
        (self._folder / "pip.conf").write_text("[global]\n" + "".join(lines))
        return ("--pip-conf", str(self._folder / "pip.conf"), *options)


def prepared_dist() -> Path:
    """Return dist/, with the images' parts newly built."""
    from infra import build

    dist = ROOT / "dist"
    shutil.rmtree(dist / "image", ignore_errors=True)
    build.build(dist, TOOLS / "wheels", ("wheel", "scripts", "emr", "image"))
    return dist

"""The sizes of an image's layers, with a command in the place of the tool that saves it."""

from __future__ import annotations

import io
import json
import sys
import tarfile

import pytest

from infra.image.build import layers, main

PROGRAM = """#!{python}
import pathlib, shutil, sys
if sys.argv[1] == "save":
    saved = pathlib.Path({saved!r})
    if not saved.exists():
        sys.exit("no such image")
    shutil.copyfile(saved, sys.argv[sys.argv.index("--output") + 1])
"""
OWN = [
    {"created_by": "/bin/sh -c #(nop) ENV A=b", "empty_layer": True},
    {"created_by": "COPY lib /opt", "empty_layer": False},
]


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Where the image is that ``docker save`` gives; there is none yet."""
    program, path = tmp_path / "docker", tmp_path / "saved.tar"
    program.write_text(PROGRAM.format(python=sys.executable, saved=str(path)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return path


def save(path, config, sizes):
    contents = {f"{n}.tar": b"x" * size for n, size in enumerate(sizes)}
    manifest = [{"Config": "config.json", "Layers": list(contents)}]
    contents |= {
        "manifest.json": json.dumps(manifest).encode(), "config.json": json.dumps(config).encode()
    }  # fmt: skip
    with tarfile.open(path, "w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("history", "base"),
    [([{"created_by": "ADD file:12 in /"}, *OWN], "ADD /"), ([{}, *OWN], "the base"),
     (OWN, "the base")],
)  # fmt: skip
def test_each_layer_has_its_size_and_its_step(saved, history, base):
    save(saved, {"history": history}, [70, 8])
    assert layers("docker", "x") == [(70, base), (8, "COPY lib /opt")]


def test_an_image_without_a_history_has_sizes(saved):
    save(saved, {}, [70, 8])
    assert layers("docker", "x") == [(70, "the base"), (8, "the base")]


def test_an_image_that_is_built_and_not_kept_is_no_failure(saved, capsys):
    assert not saved.exists()
    assert main(["--tool", "docker"]) == 0
    assert "built, but the sizes of its layers are unknown: docker save" in capsys.readouterr().err

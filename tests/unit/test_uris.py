"""Places in one form: whatever spells them, a table stays in its folder and reads not its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from extract_jobs.config import load_config, specs_for
from extract_jobs.errors import ConfigError
from extract_jobs.run import run_extract
from extract_jobs.spec.globs import glob_reaches
from extract_jobs.spec.uris import is_inside, normal_uri, overlap
from extract_jobs.storage.local_files import to_path


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    (tmp_path / "drop" / "in").mkdir(parents=True)
    (tmp_path / "drop" / "in" / "a.csv").write_text("id,name\n1,x\n2,y\n")
    (tmp_path / "outside.csv").write_text("id,name\n3,z\n")
    return tmp_path / "drop"


def config_text(drop: str, target: str, glob: str, table: str = "t", more: str = "") -> str:
    return (
        f"version: 1\nsource: {{name: s, type: files, connection: {{uri: '{drop}'}}}}\n"
        f"tables:\n  '{table}': {{files: {{glob: '{glob}'}}, target: {{uri: '{target}'}}{more}}}\n"
    )


def test_equal_places_are_equal_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "link").symlink_to("a b")
    monkeypatch.chdir(tmp_path)
    wanted = str(tmp_path.resolve() / "a b" / "c")
    paths = ("a b/c", "./a b/c/", "x/../a b/c", "link/c", f"{tmp_path}//a b/c")
    uris = (f"file://{tmp_path}/a%20b/c", f"file://localhost{tmp_path}/link/c/")
    assert {normal_uri(spelled) for spelled in (*paths, *uris)} == {wanted}
    assert normal_uri("s3://b/a/../c%20d/") == "s3://b/a/../c%20d"  # S3 does nothing to a key
    assert is_inside("s3://b/a/c", "s3://b/a/")
    assert not is_inside("s3://b/ab", "s3://b/a")
    assert overlap("/", "/x")
    assert not overlap("/x", "/y")


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize("name", ["../../up", "..", ".", "a/../../b", "%2e%2e/x", "_x", "a b"])
def test_a_table_of_any_name_writes_below_its_folder(
    tmp_path: Path, scheme: str, name: str
) -> None:
    base = f"{scheme}{tmp_path}/lake"
    config = load_config(config_text("/drop", f"{base}/{{table}}", "x.csv", name), "c.yml")
    [spec] = specs_for(config, [name], run_id_for=lambda _: "r")
    for uri in (spec.target.uri, spec.state_uri, spec.report_uri):
        assert to_path(uri).resolve().is_relative_to(tmp_path.resolve() / "lake")
        assert normal_uri(uri) != normal_uri(base)
    [plain] = specs_for(
        load_config(config_text("/drop", f"{tmp_path}/lake/{{table}}", "x.csv", name), "c.yml"),
        [name],
        run_id_for=lambda _: "r",
    )
    assert normal_uri(spec.target.uri) == normal_uri(plain.target.uri)


@pytest.mark.parametrize("glob", ["../x.csv", "in/../../*.csv", "..", "./a.csv", "**/../x"])
def test_a_glob_does_not_leave_its_folder(glob: str) -> None:
    with pytest.raises(ConfigError, match=r"files\.glob: the glob leaves connection\.uri"):
        load_config(config_text("/drop", "/lake/t", glob), "c.yml")


@pytest.mark.parametrize("glob", ["in/*.csv", "**/*.csv", "in/b.csv"])
def test_a_link_out_of_the_folder_is_refused(drop: Path, tmp_path: Path, glob: str) -> None:
    (drop / "in" / "b.csv").symlink_to(tmp_path / "outside.csv")
    config = load_config(config_text(str(drop), f"{tmp_path}/lake", glob), "c.yml")
    [spec] = specs_for(config, ["t"], run_id_for=lambda _: "r")
    with pytest.raises(ConfigError, match="symbolic link to a place outside"):
        run_extract(spec)
    assert not (tmp_path / "lake").exists()


def test_links_within_the_folder_are_files_like_others(drop: Path, tmp_path: Path) -> None:
    (drop / "in" / "b.csv").symlink_to(drop / "in" / "a.csv")
    (tmp_path / "elsewhere").symlink_to(drop)  # the folder itself may be named by a link
    config = load_config(
        config_text(str(tmp_path / "elsewhere"), f"{tmp_path}/lake", "in/*.csv"), "c.yml"
    )
    [spec] = specs_for(config, ["t"], run_id_for=lambda _: "r")
    assert run_extract(spec).rows == 4


def test_a_folder_that_is_a_link_out_is_refused(drop: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "o.csv").write_text("id\n1\n")
    (drop / "gone").symlink_to(tmp_path / "other")
    config = load_config(config_text(str(drop), f"{tmp_path}/lake", "gone/*.csv"), "c.yml")
    [spec] = specs_for(config, ["t"], run_id_for=lambda _: "r")
    with pytest.raises(ConfigError, match="symbolic link to a place outside"):
        run_extract(spec)


@pytest.mark.parametrize("drop_as", ["{0}", "file://{0}", "{0}/x/..", "{1}", "drop"])
@pytest.mark.parametrize("target_as", ["{0}/out", "file://{0}/out", "{0}/../drop/out", "{1}/out"])
def test_a_table_does_not_read_its_own_output(
    drop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drop_as: str, target_as: str
) -> None:
    (tmp_path / "link").symlink_to(drop)
    monkeypatch.chdir(tmp_path)
    names = (str(drop), str(tmp_path / "link"))
    text = config_text(drop_as.format(*names), target_as.format(*names), "**/*")
    with pytest.raises(ConfigError, match=r"\*\*/\* may match what is written to target"):
        load_config(text, "c.yml")


def test_a_table_reads_neither_its_state_nor_what_another_table_writes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"may match what is written to state_uri"):
        load_config(
            config_text("/d", "/lake/t", "**/*.json", more=", state_uri: 'file:///d/st'"), "c.yml"
        )
    text = config_text("/d", "/lake/t", "*/*.parquet")
    more = "  u: {files: {glob: 'in/*.csv'}, target: {uri: 'file:///d/out'}}\n"
    with pytest.raises(ConfigError, match=r"tables\.t: its files\.glob .* written for u"):
        load_config(text + more, "c.yml")


@pytest.mark.parametrize(
    ("glob", "place", "found"),
    [
        ("**/*.csv", "/d/out", True),
        ("*.csv", "/d/out", False),  # * stays within a folder
        ("*/*.csv", "/d/out", True),
        ("*/*.csv", "/d/a/b", False),
        ("*/b/*.csv", "/d/a/b", True),
        ("*/c/*.csv", "/d/a/b", False),
        ("in*/x.csv", "/d/out", False),
        ("o?t/**", "/d/out/deep", True),
        ("**", "/d/_extract", False),
        ("**", "/d/_k=1/x", True),
        ("out/x/*.csv", "/d/out", True),
        ("in/*.csv", "/d/out", False),
        ("**", "/elsewhere", False),
        ("**", "/", True),
        ("a.csv", "/d", True),
    ],
)
def test_what_a_glob_can_find(glob: str, place: str, found: bool) -> None:
    assert glob_reaches("/d", glob, place) is found
    assert glob_reaches("file:///d/", glob, place) is found
    assert glob_reaches("s3://b/d", glob, f"s3://b{place}") is found

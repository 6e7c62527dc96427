"""What a local folder has of its own: full disks, links, folders left behind, other writers."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from extract_jobs.errors import ConfigError, WriteFailed
from extract_jobs.storage import StagedFile, join
from extract_jobs.storage.local import LocalStorage
from extract_jobs.storage.local_files import local_errors, to_path

REPOSITORY = Path(__file__).parents[2]
STORAGE = LocalStorage()


def stage(root: Path | str, name: str = "day=1/a.parquet", data: bytes = b"rows") -> StagedFile:
    writer = STORAGE.stage(join(str(root), name), str(root), uuid.uuid4().hex)
    writer.write(data)
    return writer.close()


def everything(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def test_a_folder_may_be_spelled_with_two_dots(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    folder = f"{tmp_path}/work/../lake"
    done, dropped = stage(folder), stage(folder, "day=2/b.parquet")
    assert STORAGE.complete(done)
    STORAGE.abort(folder, dropped)
    assert everything(tmp_path / "lake") == {"day=1", "day=1/a.parquet"}


def test_nothing_of_staging_stays_after_the_last_file(tmp_path: Path) -> None:
    done, dropped = stage(tmp_path), stage(tmp_path, "day=2/b.parquet")
    assert STORAGE.complete(done)
    assert (tmp_path / ".extract_staging").is_dir()
    STORAGE.abort(str(tmp_path), dropped)
    STORAGE.probe(str(tmp_path))
    assert everything(tmp_path) == {"day=1", "day=1/a.parquet"}


def test_a_glob_for_parquet_does_not_find_staged_files(tmp_path: Path) -> None:
    stage(tmp_path)
    assert list(tmp_path.rglob("*.parquet")) == []
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())


def test_a_listing_leaves_out_only_staging_and_drafts(tmp_path: Path) -> None:
    stage(tmp_path)
    (tmp_path / ".extract_tmp-123").write_bytes(b"half")
    (tmp_path / ".hidden").write_bytes(b"1")
    assert [f.uri for f in STORAGE.list(f"{tmp_path}/")] == [f"{tmp_path}/.hidden"]


def test_drafts_of_killed_processes_are_deleted_by_their_age(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    os.utime(tmp_path / "a", (0, 0))
    (tmp_path / "sub").mkdir()
    os.link(tmp_path / "a", tmp_path / "sub" / ".extract_tmp-1")  # as a copy begins
    (tmp_path / ".extract_tmp-2").write_bytes(b"half")
    now = datetime.now(UTC) + timedelta(seconds=1)
    STORAGE.delete_drafts(str(tmp_path), now - timedelta(hours=1))
    assert len(everything(tmp_path)) == 4
    STORAGE.delete_drafts(tmp_path.as_uri(), now)
    STORAGE.delete_drafts(str(tmp_path / "absent"), now)
    assert everything(tmp_path) == {"a", "sub"}


def test_relative_paths_are_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    staged = stage("lake/orders", "a.parquet")
    assert staged.uri == "lake/orders/a.parquet"
    assert [a.uri for a in STORAGE.abandoned("lake/orders")] == [staged.uri]
    monkeypatch.chdir("/")
    assert Path(staged.upload["path"]).is_file()
    monkeypatch.chdir(tmp_path)
    assert STORAGE.complete(staged)
    assert [f.uri for f in STORAGE.list("lake/")] == [staged.uri]
    STORAGE.put("top", b"1")
    assert [f.uri for f in STORAGE.list("to")] == ["top"]


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///tmp/a%20b/%25/x=1", "/tmp/a b/%/x=1"),
        ("file://localhost/tmp/a", "/tmp/a"),
        ("/tmp/a%20b", "/tmp/a%20b"),
        ("file:///tmp/a#b?c", "/tmp/a#b?c"),
        ("rel/x", "rel/x"),
    ],
)
def test_file_uris_are_decoded_and_paths_are_not(uri: str, path: str) -> None:
    assert to_path(uri) == Path(path)


def test_a_listing_starts_after_however_the_uri_is_spelled(tmp_path: Path) -> None:
    root = tmp_path.as_uri()
    for name in ["a b", "a:b", "c"]:
        STORAGE.put(join(root, name), b"1")
    found = [f.uri for f in STORAGE.list(root + "/", start_after=f"{root}/a:b")]
    assert found == [join(root, "c")]


def test_a_file_outside_the_root_is_refused(tmp_path: Path) -> None:
    root = str(tmp_path / "lake")
    for uri in [str(tmp_path / "a"), root]:
        with pytest.raises(ConfigError, match="expected a file below"):
            STORAGE.stage(uri, root, "t")


def test_a_full_disk_is_a_failure_worth_a_retry() -> None:
    device = Path("/dev/full")  # answers every write as a full disk does
    with (
        pytest.raises(WriteFailed, match=r"cannot write here: No space left.*free some space"),
        local_errors("write", "here"),
        device.open("wb", buffering=0) as file,
    ):
        file.write(b"1")


def test_a_file_that_cannot_grow_fails_and_leaves_nothing(tmp_path: Path) -> None:
    code = """
import resource, sys
from extract_jobs.errors import WriteFailed
from extract_jobs.storage.local import LocalStorage
resource.setrlimit(resource.RLIMIT_FSIZE, (1024**2, 1024**2))
root = sys.argv[1]
for attempt in (1, 2):
    writer = LocalStorage().stage(root + "/a", root, "t")
    try:
        writer.write(bytes(4 * 1024**2))
        writer.close()
    except WriteFailed as error:
        print(error)
        writer.abort()
try:
    LocalStorage().put_if_absent(root + "/b", bytes(4 * 1024**2))
except WriteFailed as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("File too large; free some space") == 3
    assert everything(tmp_path) == set()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1024**2


def test_a_folder_in_a_files_place_is_configuration(tmp_path: Path) -> None:
    (tmp_path / "commits" / "1.json").mkdir(parents=True)
    uri = str(tmp_path / "commits" / "1.json")
    for write in (STORAGE.put, STORAGE.put_if_absent):
        with pytest.raises(ConfigError, match=r"Is a directory|Not a directory"):
            write(uri, b"1")
    assert STORAGE.read(uri) is None
    assert STORAGE.head(uri) is None
    assert everything(tmp_path) == {"commits", "commits/1.json"}


@pytest.mark.parametrize("parent", ["/proc", "a file", "a broken link"])
def test_a_folder_that_cannot_be_made_is_configuration_and_named(
    parent: str, tmp_path: Path
) -> None:
    if parent == "/proc":  # says "No such file", although the folder above is there
        root = refused = Path("/proc/x")
    else:
        refused = tmp_path / "taken"
        if parent == "a file":
            refused.write_bytes(b"1")
            refused /= "x"
        else:
            refused.symlink_to(tmp_path / "nowhere")
        root = refused / "orders"
    for write in (STORAGE.probe, stage, lambda r: STORAGE.put(f"{r}/state/1.json", b"1")):
        with pytest.raises(ConfigError, match=rf"the folder {refused}.* cannot be created: "):
            write(str(root))


def test_a_broken_link_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "1.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(WriteFailed, match="broken link"):
        STORAGE.put_if_absent(str(tmp_path / "1.json"), b"1")


def test_a_name_with_a_nul_is_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="null"):
        STORAGE.put(f"{tmp_path}/a\0b", b"1")


def test_writers_that_come_and_go_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Each completion may remove the folder in which another writer is about to stage."""
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(30):
                staged = stage(tmp_path, f"day={number}/{turn}", bytes([turn]))
                if turn % 3 == 0:
                    STORAGE.abort(str(tmp_path), staged)
                else:
                    assert STORAGE.complete(staged)
        except BaseException as problem:  # noqa: BLE001
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(list(STORAGE.list(f"{tmp_path}/"))) == 4 * 20
    assert not (tmp_path / ".extract_staging").exists()


def test_a_file_costs_two_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own, and that of the folder that names it: a sync takes a disk milliseconds."""
    assert STORAGE.complete(stage(tmp_path))
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    assert STORAGE.complete(stage(tmp_path))
    assert len(synced) == 2
    STORAGE.probe(str(tmp_path))
    assert len(synced) == 5


def test_what_is_reported_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files and the folders that name them are synced before a method returns."""
    synced: set[str] = set()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    root = tmp_path / "lake" / "orders"
    staged = stage(root)
    assert {staged.upload["path"], str(root.parent), str(tmp_path)} <= synced
    synced.clear()
    assert STORAGE.complete(staged)
    assert {str(root / "day=1"), str(root)} <= synced
    synced.clear()
    assert STORAGE.complete(staged)  # a second process must not rely on the first one's sync
    assert str(root / "day=1") in synced
    synced.clear()
    STORAGE.put_if_absent(str(tmp_path / "state" / "1"), b"1")
    assert {str(tmp_path / "state"), str(tmp_path)} <= synced
    assert any(".extract_tmp-" in name for name in synced)
    synced.clear()
    assert STORAGE.put_if_absent(str(tmp_path / "state" / "1"), b"2") == b"1"
    assert str(tmp_path / "state") in synced


def test_staged_files_are_listed_while_others_remove_theirs(tmp_path: Path) -> None:
    """A folder that is gone once it is looked into holds nothing; the rest is listed."""
    kept, done = stage(tmp_path), threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            STORAGE.abort(str(tmp_path), stage(tmp_path, "day=2/hour=3/b.parquet"))

    threads = [threading.Thread(target=come_and_go) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            assert kept.uri in {upload.uri for upload in STORAGE.abandoned(str(tmp_path))}
    finally:
        done.set()
        for thread in threads:
            thread.join()

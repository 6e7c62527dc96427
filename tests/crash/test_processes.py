"""Real processes at odds: two attempts at once, two runs at once, uploads gone too early."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from uuid import uuid4

import pytest

from infra.local.emulator import Emulator
from tests.support.crash import ROWS, Driver, Lake, Story, s3_client
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres import Server
from tests.support.sampling import sample

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def second_driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with Driver(tmp_path_factory.mktemp("crash") / "second.log") as driver:
        yield driver


@pytest.fixture
def story(
    driver: Driver, database: Server, ministack: Emulator, bucket: str, proxy: FaultProxy
) -> Story:
    lake = Lake(f"{bucket}/{uuid4().hex[:12]}", ministack.environment())
    return Story(driver, database, lake, "append", proxy)


@pytest.mark.parametrize("round_", sample(range(5), 2))
@pytest.mark.parametrize("same_attempt", [True, False])
def test_two_attempts_of_one_run_at_once(
    story: Story, second_driver: Driver, same_attempt: bool, round_: int
) -> None:
    target = story.target
    first = story.lake.spec(story.server, "r", 1, target=target)
    second = story.lake.spec(story.server, "r", 1 if same_attempt else 2, target=target)
    story.driver.start(first, story.environment())
    second_driver.start(second, story.environment())
    ends = [story.driver.end(), second_driver.end()]
    assert [e.exit for e in ends] == [0, 0], ends
    assert story.lake.read() == ROWS
    assert story.lake.staged() == []
    assert story.lake.report("r", 1)["commit_seq"] == 1


@pytest.mark.parametrize("round_", sample(range(5), 2))
def test_two_runs_at_once_commit_one_after_the_other(
    story: Story, second_driver: Driver, round_: int
) -> None:
    """The loser plans again on the winner's commit and says so."""
    for driver, run_id in ((story.driver, "a"), (second_driver, "b")):
        driver.start(
            story.lake.spec(story.server, run_id, target=story.target), story.environment()
        )
    ends = [story.driver.end(), second_driver.end()]
    assert [e.exit for e in ends] == [0, 0], ends
    assert story.lake.read() == sorted(ROWS * 2)
    assert {story.lake.report(r)["commit_seq"] for r in ("a", "b")} == {1, 2}
    assert story.lake.staged() == []


def test_uploads_that_are_gone_before_publishing_void_the_commit(
    story: Story, proxy: FaultProxy
) -> None:
    """As after a lifecycle rule, or a person's hand: killed at the first completion."""
    proxy.clear()
    proxy.fail(1, "kill_before", only=lambda r: r.operation == "CompleteMultipartUpload"
               and "_extract_probe" not in r.path)  # fmt: skip
    assert story.extract("r", faulty=True).exit == -signal.SIGKILL
    client = s3_client(story.lake.environment)
    bucket = story.lake.uri.removeprefix("s3://").split("/")[0]
    uploads = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    mine = [u for u in uploads if f"s3://{bucket}/{u['Key']}".startswith(story.lake.uri)]
    assert mine  # of three, one a partition; they are completed several at a time
    client.abort_multipart_upload(Bucket=bucket, Key=mine[-1]["Key"], UploadId=mine[-1]["UploadId"])
    ended = story.extract("r", 2)
    assert story.lake.read() in ([], ROWS)
    if ended.exit != 0:
        assert (ended.exit, "voided" in ended.stderr) == (75, True), ended.stderr
        assert story.lake.read() == []
        assert story.lake.staged() == []
    story.assert_whole("after the commit was voided", attempt=3)
    assert story.lake.report("r", 3)["commit_seq"] == 2

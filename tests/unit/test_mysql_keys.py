"""What the test of keys looks at: it sees a row that is lost or doubled, and a split too large."""

from __future__ import annotations

import pytest

from tests.support.mysql_keys import HEADING, KEYS, PAGE, Read, Row

WHOLE: list[Row] = [(i, "a") for i in range(9)] + [(8, "a")]


def read(parts: list[list[Row]]) -> Read:
    return Read(parts, WHOLE, [])


def test_rows_in_any_order_of_any_split_are_the_tables() -> None:
    read([WHOLE[5:], [], WHOLE[:5][::-1]]).check_rows()


@pytest.mark.parametrize(("parts", "says"), [
    ([WHOLE[:-1]], r"missing: \[\(8, 'a'\)\], too many: \[\]"),
    ([WHOLE, WHOLE[:1]], r"missing: \[\], too many: \[\(0, 'a'\)\]"),
    ([[*WHOLE[1:], (9, "a")]], r"missing: \[\(0, 'a'\)\], too many: \[\(9, 'a'\)\]"),
    ([[*WHOLE[1:], (0, "b")]], r"missing: \[\(0, 'a'\)\], too many: \[\(0, 'b'\)\]"),
    ([[*WHOLE[:-1], WHOLE[0]]], r"missing: \[\(8, 'a'\)\], too many: \[\(0, 'a'\)\]"),
])  # fmt: skip
def test_a_row_lost_doubled_or_changed_is_seen(parts: list[list[Row]], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        read(parts).check_rows()


def test_more_than_three_times_a_share_is_seen() -> None:
    five = [WHOLE[:6], WHOLE[6:7], WHOLE[7:8], WHOLE[8:9], WHOLE[9:]]
    read(five).check_even(0)
    assert read(five).share == 3
    larger = [WHOLE[:7], [], *five[2:]]
    with pytest.raises(AssertionError, match=r"\[7, 0, 1, 1, 1\]"):
        read(larger).check_even(0)
    read(larger).check_even(1)


def test_only_kinds_that_are_not_dense_are_let_off() -> None:
    let_off = {kind for kind, key in KEYS.items() if key.largest}
    assert let_off == {"nullable unique"}


def test_the_page_has_a_row_for_each_kind() -> None:
    text = PAGE.read_text("utf-8").partition(HEADING)[2]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines()
            if line.startswith("| ")]  # fmt: skip
    assert rows[2:] == list(KEYS)

"""The page about runs: what is in it, and that it stands on its own."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from extract_jobs.reporting.page import PHASES, TableRun, report_page
from extract_jobs.reporting.table_state import TROUBLE, TableStatus
from tests.support.report_pages import NOW, run_of, whole_page


class Page(HTMLParser):
    """What a page is made of; fails on elements that are not closed in order."""

    VOID = frozenset({"meta", "link", "wbr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, name: str) -> list[str]:
        """Return every value of an attribute."""
        return [value for _, attrs in self.tags if (value := attrs.get(name)) is not None]


def test_the_page_stands_on_its_own() -> None:
    text = whole_page()
    page = Page(text)
    assert not {"script", "img", "iframe", "style src"} & {tag for tag, _ in page.tags}
    assert set(page.all("href")) == {"#tables", "data:,"}
    assert not page.all("src")
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_names_and_messages_are_text_only() -> None:
    text = whole_page()
    assert "<script" not in text
    assert "<b>" not in text
    shown = "".join(Page(text).texts)
    assert "<script>alert(1)</script>" in shown
    assert "SourceUnavailable: no <b>answer</b> & more" in shown
    assert "Ended in phase plan. A retry may help." in shown


def test_what_is_named_is_there_and_only_once() -> None:
    page = Page(whole_page())
    assert max(Counter(page.all("id")).values()) == 1
    named = {*page.all("aria-labelledby"), *(h[1:] for h in page.all("href") if h[0] == "#")}
    assert named <= set(page.all("id"))
    scrolled = [attrs for _, attrs in page.tags if attrs.get("class") == "scroll"]
    assert len(scrolled) == 3
    assert all(attrs["tabindex"] == "0" and attrs["role"] == "group" for attrs in scrolled)
    pictures = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in pictures)


def test_every_state_and_phase_has_its_look() -> None:
    text = whole_page()
    for state in TROUBLE:
        assert f".{state.replace(' ', '-')}" in text
    for phase in PHASES:
        assert text.count(f"--{phase}:") >= 1
        assert f".p-{phase} " in text


def test_figures() -> None:
    shown = " ".join(" ".join(Page(whole_page()).texts).split())
    assert "rows 1,000 Parquet 5.0 MB" in shown
    assert "2.5 MB/s" in shown
    assert "column discount added (double) older files: NULL" in shown
    assert "2026-02-27 12:00:00 2 d" in shown


def test_the_timeline_is_to_scale() -> None:
    text = report_page("s", [run_of("a", ended=7), run_of("b"), run_of("old", ended=90_000)], NOW)
    bars = re.findall(r'class="p-(\w+)" x="([\d.]+)" y="0" width="([\d.]+)"', text)
    # From 10 s ago to now: a from 0 to 3 s, b from 7 to 10 s.
    assert bars == [
        ("plan", "0.0", "100.0"), ("extract", "100.0", "200.0"),
        ("plan", "700.0", "100.0"), ("extract", "800.0", "200.0"),
    ]  # fmt: skip
    assert "2026-03-01 11:59:50 UTC" in text


def test_units_are_an_estimate_and_summed_up() -> None:
    runs = [
        replace(run_of(name), units={"DPU-hours": 0.25, **more})
        for name, more in [("a", {}), ("b", {"GB-hours": 2.0})]
    ]
    shown = " ".join(" ".join(Page(report_page("s", runs, NOW)).texts).split())
    assert "DPU-hours, estimate 0.5 GB-hours, estimate 2" in shown
    assert "0.25 DPU-hours 2 GB-hours" in shown
    assert "is an estimate" in shown
    assert "estimate" not in report_page("s", [run_of("a")], NOW)


def test_tables_without_any_run() -> None:
    page = Page(report_page("s", [TableRun(TableStatus("t", "never run"))], NOW))
    assert "timeline" not in page.all("id")
    assert "changes" not in page.all("id")


def test_trouble_comes_first() -> None:
    text = report_page("s", [run_of("a"), run_of("b", "failed"), run_of("c", "overdue")], NOW)
    rows = re.findall(r'<th scope="row">(\w)</th>', text)
    assert rows == ["b", "c", "a"]


@pytest.mark.parametrize("seconds", [0.0, 0.0001])
def test_a_run_that_took_no_time(seconds: float) -> None:
    Page(report_page("s", [run_of("a", timings={"plan": seconds})], NOW))

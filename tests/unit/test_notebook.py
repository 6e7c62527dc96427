"""Notebooks: the page's notebook in a real kernel, and results that show themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from extract_jobs.reporting.html import html_facts, html_table
from extract_jobs.reporting.notebook import notebook_progress
from extract_jobs.reporting.report import Report, ReportedError

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_notebook_of_the_docs_runs(tmp_path: Path) -> None:
    """Takes some seconds: a kernel is a process of its own."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "it is kept without outputs"
    NotebookClient(
        notebook, timeout=120, kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()  # fmt: skip
    *_, planned, extracted, read = (c for c in notebook.cells if c.cell_type == "code")
    [shown] = planned.outputs
    assert "<caption>Plan</caption>" in shown.data["text/html"]
    assert ">int64</td>" in shown.data["text/html"]
    line, report = extracted.outputs
    assert line.data["text/plain"].startswith("orders: succeeded: 1,000 rows in ")
    assert "<caption>shop/orders: succeeded</caption>" in report.data["text/html"]
    assert read.outputs[0].data["text/plain"] == "[(1000, 0, 999)]"


def test_values_are_escaped() -> None:
    assert "<b>" not in html_facts("<b>", [("<b>", "<b>"), ("none", None)])
    assert "none" not in html_facts("title", [("none", None)])
    assert html_table(["<b>"], [["<b>"]]).count("&lt;b&gt;") == 2


def test_a_failed_report_says_why() -> None:
    error = ReportedError(class_name="ConfigError", message="no <table>", retryable=False)
    text = Report(
        status="failed", run_id="r", attempt=1, source_name="s", extract_table="t",
        target_uri="lake", error=error,
    )._repr_html_()  # fmt: skip
    assert "ConfigError: no &lt;table&gt;" in text
    assert "source rows" not in text


def test_outside_of_a_notebook_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert notebook_progress("t") is None

    class Terminal:
        def get_ipython(self) -> object:
            return object()

    monkeypatch.setitem(__import__("sys").modules, "IPython", Terminal())
    assert notebook_progress("t") is None, "a terminal of IPython has no kernel"

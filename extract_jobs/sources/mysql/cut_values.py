"""Finds out from a server's warnings whether it sent less than it has stored."""

from __future__ import annotations

from extract_jobs.errors import SourceQueryFailed
from extract_jobs.sources.mysql.driver import Connection
from extract_jobs.sources.mysql.errors import scrub
from extract_jobs.sources.mysql.session import execute

_CUT = {
    1260: "a value of group_concat was cut",
    1265: "a value was cut",
    1301: "a value is larger than the server's max_allowed_packet, and was cut or became NULL",
    1406: "a value was cut",
    1931: "the query was ended early, with rows missing",
}
"""Numbers of the warnings that mean missing rows or parts of values."""
_TOO_LARGE = 1301
"""The only one of them that a text that became NULL explains."""


def check_nothing_cut(
    opened: Connection, count: int, what: str, *, accounted: int, is_own: bool
) -> None:
    """Check the warnings of the last statement.

    Args:
        opened: The connection that ran it.
        count: How many warnings there are.
        what: What was being done, for the message.
        accounted: Texts that became NULL and were counted, which may explain warnings about values
            that are too large.
        is_own: Whether all expressions that gave values come from this package.

    Raises:
        SourceQueryFailed: Rows or parts of values are missing, or may be.
    """
    if not count:
        return
    known = execute(opened, "show warnings")
    found = [int(code) for _, code, _ in known]
    cut = [code for code in found if code in _CUT and code != _TOO_LARGE]
    if found.count(_TOO_LARGE) > accounted:
        cut.append(_TOO_LARGE)
    if cut:
        raise SourceQueryFailed(
            f"{what} failed: {_CUT[cut[0]]} (warning {cut[0]}). Raise max_allowed_packet on the "
            "server, or read less: exclude the column, or shorten it yourself in a query"
        )
    if len(known) < count and not is_own:
        first = f"{known[0][1]}, {scrub(str(known[0][2]))}" if known else "it keeps none"
        raise SourceQueryFailed(
            f"{what} failed: the server raised {count} warnings and shows {len(known)} of them "
            f"(the first: {first}), so a value that was cut would go unnoticed. Change the query "
            "or view so that it gives no warnings, or raise the server's max_error_count"
        )

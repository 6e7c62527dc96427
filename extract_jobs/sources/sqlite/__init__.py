"""SQLite: one local file, read in place.

`connection.path` is a file on the worker's own disk, or a `file://` URL. It is opened read-only. A
process uses only one copy of the SQLite library at a time, so that locks hold.

With `extract-jobs[sqlite]`, which installs ADBC's driver, a table with rowids and several splits is
read with less CPU time. A split is read value by value from the first value of another storage
class or the first row of more than 8 KiB on, and from its beginning if the table has generated
columns or the spec has a `where`. The rows are the same in each case.

A database with a rollback journal is locked while a table is extracted: its writers wait or get
"database is locked", and all splits share one snapshot. If a writer holds the lock first, the
extract waits for up to `connection.connect_timeout_seconds`.

In WAL mode writers continue. One connection then holds the snapshot, and `split.strategy: auto`
reads the whole table through it. With `rowid` or `range` each split has its own connection. If
anybody commits before the last connection has joined, the run fails and may be retried: use these
for databases that do not change while they are extracted.

In a `query`, put text in single quotes: before Python 3.12, SQLite treats a name in double quotes
that matches no column as text instead of an error. In `where` it is refused.

A watermark column without an integer or decimal type is compared as text. If it holds numbers,
as a column without a type or an expression like `coalesce(updated, created)` may, the run is
refused until `columns.cast` names their type: SQLite sorts numbers before every text, so later rows
would be lost.

SQLite has no type for times. A text column that holds ISO dates is a good watermark, because its
values sort by time; `watermark.lag` and `delay` are not available for it.
"""

"""SQLite: one file, read where it lies. See `source`.

`connection.path` is a file on the worker's own disk, or a `file://` URL. It is opened read-only and
through Python's own SQLite alone, so that locks hold.

A database with a rollback journal is held by a lock while a table is extracted: its writers wait,
or are told that it is locked, and all splits see one moment. A writer that has the lock first is
waited for as long as `connection.connect_timeout_seconds` says.

In WAL mode writers go on. Then one connection holds the snapshot, and `split.strategy: auto` reads
the whole table through it. With `rowid` or `range` each split has a connection of its own, and the
run fails, to be tried again, if anybody commits before the last one has joined: for databases that
are still while they are extracted.

In a `query`, put texts between single quotes: before Python 3.12, a name between double quotes that
no column has is a text to SQLite, and no error. In `where` it is refused.

A watermark column without an integer or decimal type is compared as text. Where it holds numbers,
as a column without a type or an expression like `coalesce(updated, created)` may, the run is
refused until `columns.cast` names their type: SQLite sorts numbers before every text, so later rows
would be lost.

SQLite has no type for times. A text column that holds ISO dates is a good watermark, as its texts
are in the order of time; `watermark.lag` and `delay` are not to be had for it.
"""

"""MySQL, MariaDB and Aurora MySQL, read through their own protocol straight into Arrow.

The tests run it against MySQL and MariaDB.

**What splits see.** With `split.one_snapshot: auto`, the default, all splits of a table see one
moment, as those of PostgreSQL do, and the source's own count in it must equal the rows read. For
that the table is locked (`LOCK TABLES … READ`) while the sessions take their snapshots: about one
round trip, in which writers wait. A transaction that has written to the table has to end first. The
lock waits for it up to 1 s, three times, 1 s apart, and new writers queue behind each of these
waits. The user needs `LOCK TABLES` on the database.

If that is impossible, each split is a read-only transaction with a snapshot of its own, and the
report says why in `read_from`. Then rows that nobody changes while they are read arrive exactly
once, but a row whose key, or watermark, is updated meanwhile may arrive twice or not at all, and
the count is reported, not enforced. The reasons: the user may not lock; a transaction does not end;
a view or `query`, or a `where` with a subquery or an unknown function, any of which may read other
tables; an engine other than InnoDB; a server that shows what others write (Galera, a reader of
Aurora); a server that accepts ``LOCK TABLES`` and does not enforce it (TiDB, Vitess), which is
checked by reading the table under a name that was not locked; a proxy that leads to several
servers; executors on other machines than the driver, because sessions cannot be lent to them: so on
Glue, and on EMR with a cluster. ``require`` fails with the same reasons instead, and ``never``
locks nothing. With ``split.strategy: none`` all rows are of one moment anyway.

`deletes: detect` needs rows and keys of one moment. Where the table cannot be locked, one session
reads all splits one after another, and then the keys; the report says why in ``one_connection``. A
table of another engine than InnoDB is refused, and so are executors on other machines. A view or
`query` must read InnoDB tables alone, which is not checked.

A session that is lost is not replaced, since a new one would see another moment: the others read
its split. When all are lost, the attempt fails and is retried. If a server or a proxy ends every
long transaction, set ``never``.

Not tested: TiDB, Vitess and PlanetScale, Aurora and its readers, PolarDB, ProxySQL, MaxScale,
MySQL Router, RDS Proxy. The checks for them are written from documentation. PolarDB's read-only
nodes share storage as Aurora's readers do; whether `innodb_read_only` shows that is not known: set
``never`` there.

**Splits** are ranges of the primary key, or of the first unique index. The index's own estimates
of its ranges decide the bounds, so that sparse and skewed keys give even splits; if one value of a
key of several columns has too many rows, they are split by the next column. Descending keys are
split the same way. Indexes that the optimizer may not use, that begin with an expression or hold
only the start of a column are skipped; `plan` says why a table is one split. An interval that is a
small part of the table is split through its watermark's index. Without a key there is one split;
`split.column` with `strategy: range` names another column. Keys of other types than integers,
decimals, dates, times, `char`, `varchar`, `binary` and `varbinary` are not split.

**Values that the server cut** fail the run: a text or JSON above its `max_allowed_packet`, a
`group_concat` or a recursive query that was ended early. The server converts text in other
character sets to UTF-8, and back again to show that nothing was lost on the way.

**Sessions** are in UTC, without `sql_mode`, without time limits and read-only, whatever the server
has: in `query`, backslashes escape and double quotes are strings. The settings that are overridden
are listed below. A table is `database.table`, or `table` in the connection's database; parts that
contain dots may be in backticks.

**Reading a replica:** a name that leads to several replicas is resolved once for all splits of an
attempt, but planning may have used another one. If replicas lag, set `watermark.delay`.

`sslmode: prefer`, the default for this machine, uses TLS if the server has it. A password that the
server wants in clear text, such as an IAM token, is sent over TLS only.
"""

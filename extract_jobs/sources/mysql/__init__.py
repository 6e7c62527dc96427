"""MySQL, MariaDB and Aurora MySQL, read through their own protocol straight into Arrow.

The tests run it against MySQL and MariaDB.

**What splits see.** With `split.one_snapshot: auto`, the default, all splits of a table see one
moment, as those of PostgreSQL do, and the source's own count in it must equal the rows read. For
that the table is locked (`LOCK TABLES … READ`) while the sessions take their snapshots: about one
round trip, in which writers wait. A transaction that has written to the table has to end first. It
is waited for up to 1 s, three times, 1 s apart, and new writers queue behind each of these waits.
The user needs `LOCK TABLES` on the database.

Where that cannot be, each split is a read-only transaction with a snapshot of its own, and the
report says why in `read_from`. Then rows that nobody changes while they are read arrive exactly
once, but a row whose key, or watermark, is updated meanwhile may arrive twice or not at all, and
the count is reported, not enforced. The reasons: the user may not lock; a transaction does not end;
a view or `query`, or a `where` with a subquery or an unknown function, any of which may read other
tables; an engine other than InnoDB; a server that shows what others write (Galera, a reader of
Aurora); a server that accepts ``LOCK TABLES`` and does not enforce it (TiDB, Vitess), which is
asked for the table by a name that was not locked; a proxy that leads to several servers; executors
on other machines than the driver, because sessions cannot be lent to them: so on Glue, and on EMR
with a cluster. ``require`` fails with the same reasons instead, and ``never`` locks nothing. With
``split.strategy: none`` all rows are of one moment anyway.

A session that is lost is not replaced, since a new one would see another moment: the others read
its split. When all are lost, the attempt fails and is retried. Where a server or a proxy ends every
long transaction, set ``never``.

Not tested: TiDB, Vitess and PlanetScale, Aurora and its readers, PolarDB, ProxySQL, MaxScale,
MySQL Router, RDS Proxy. The checks for them are written from documentation. PolarDB's read-only
nodes share storage as Aurora's readers do; whether they say so by ``innodb_read_only`` is not
known: set ``never`` there.

**Splits** are ranges of the primary key, or of the first unique index, cut by what the index itself
tells of its ranges, so that sparse and skewed keys come out even; a key of several columns goes on
in the next column where one value has too many rows. Descending keys are cut alike. Indexes that
the optimizer may not use, that begin with an expression or hold only the start of a column are
passed over; `plan` says why a table is one split. An interval that is a small part of the table
is cut through its watermark's index. Without a key there is one split; `split.column` with
`strategy: range` names another one. Keys of other types than integers, decimals, dates, times,
`char`, `varchar`, `binary` and `varbinary` are not cut.

**What the server cut** fails the run: a text or JSON above its `max_allowed_packet`, a
`group_concat` or a recursive query that was ended early. Text in another character set than UTF-8
is converted by the server, and back again to see that nothing was lost on the way.

**Sessions** are in UTC, without `sql_mode`, without time limits and read-only, whatever the server
has: in `query`, backslashes escape and double quotes are strings. Which settings are overridden is
listed below. A table is `database.table`, or
`table` in the connection's database; parts that hold dots may stand in backticks.

**Reading a replica:** a name that leads to several replicas is resolved once for all splits of an
attempt, but planning may have asked another one. Where replicas lag, give `watermark.delay`.

`sslmode: prefer`, the default for this machine, takes TLS where the server has it. A password that
the server wants in clear text, as IAM tokens are, is sent over TLS alone.
"""

"""MySQL, MariaDB and Aurora MySQL, read through their own protocol straight into Arrow.

The tests run it against MySQL and MariaDB.

**One snapshot.** With `split.one_snapshot: auto`, the default, all splits of a table share one
snapshot, as those of PostgreSQL do, and the source's own count in it must equal the rows read. To
take it, the table is locked (`LOCK TABLES … READ`) for about one round trip, in which writers wait.
A transaction that has written to the table has to end first. The lock waits for it up to 1 s, three
times, 1 s apart, and new writers queue behind each of these waits. The user needs `LOCK TABLES` on
the database.

If that is impossible, each split is a read-only transaction with its own snapshot, and the report
says why in `read_from`. Rows that nobody changes while they are read then arrive exactly once. A
row whose key, or watermark, is updated meanwhile may arrive twice or not at all, and the count is
reported, not enforced. ``require`` fails instead, with the same reasons, and ``never`` does not
lock. With ``split.strategy: none`` there is only one snapshot anyway. These are the reasons:

- The user may not lock the table, or a transaction does not end.
- A view, a `query`, or a `where` with a subquery or an unknown function may read other tables.
- The table's engine is not InnoDB.
- The server shows what other servers write (Galera, a reader of Aurora).
- The server accepts ``LOCK TABLES`` and does not enforce it (TiDB, Vitess). This is checked by
  reading the table under a name that was not locked.
- A proxy leads to several servers.
- Executors are on other machines than the driver (on Glue, and on EMR with a cluster), where they
  cannot borrow its sessions.

`deletes: detect` needs rows and keys from one snapshot. If the table cannot be locked, one session
reads all splits one after another, and then the keys; the report says why in ``one_connection``. A
table of another engine than InnoDB is refused, and so are executors on other machines. A view or
`query` must read only InnoDB tables, which is not checked.

A session that is lost is not replaced, because a new one would have another snapshot: the others
read its split. When all are lost, the attempt fails and is retried. If a server or a proxy ends
every long transaction, set ``never``.

Not tested: TiDB, Vitess and PlanetScale, Aurora and its readers, PolarDB, ProxySQL, MaxScale,
MySQL Router, RDS Proxy. The checks for them are written from documentation. PolarDB's read-only
nodes share storage as Aurora's readers do; whether `innodb_read_only` shows that is not known: set
``never`` there.

**Splits** are ranges of the primary key, or of the first unique index. Their bounds come from the
index's own estimates, so that sparse and skewed keys give even splits. If one value of the first
column of a key has too many rows, they are split by the next column. Descending keys are split the
same way. Indexes that the optimizer may not use, that begin with an expression or hold only the
start of a column are skipped; `plan` says why a table is one split. An interval that is a small
part of the table is split through its watermark's index. Without a key there is one split;
`split.column` with `strategy: range` names another column. Only keys of integers, decimals, dates,
times, `char`, `varchar`, `binary` and `varbinary` are split.

**Values that the server truncates** fail the run: a text or JSON above its `max_allowed_packet`, a
`group_concat` or a recursive query that was ended early. The server converts text in other
character sets to UTF-8, and back again to show that nothing was lost.

**Sessions** are in UTC, without `sql_mode`, without time limits and read-only, whatever the
server's settings: in `query`, backslashes escape and double quotes are strings. The overridden
settings are listed below. A table is `database.table`, or `table` in the connection's database;
parts that contain dots may be in backticks.

**Reading a replica:** a host name of several replicas is resolved once for all splits of an
attempt, but planning may have used another replica. If replicas lag, set `watermark.delay`.

`sslmode: prefer`, the default for a server on this machine, uses TLS if the server supports it. A
password that the server wants in clear text, such as an IAM token, is sent only over TLS.
"""

"""Any database with a JDBC driver, read by Spark: SQL Server, Oracle, Redshift and all the others.

``jdbc`` takes any URL. The URL selects the dialect for Derby, H2, HSQLDB, MariaDB, MySQL, Oracle,
PostgreSQL, Redshift and SQL Server; all others get standard SQL. PostgreSQL and MySQL have sources
of their own, which are faster and know more types.

**Unverified.** No real Oracle, SQL Server or Redshift was available. Their dialects follow the
documentation; those of Oracle and SQL Server also run against H2, which imitates them. What H2
lacks has never run: ``rowid`` splits, hashes of texts on SQL Server and Redshift, ``rowversion``,
the servers' clocks for ``watermark.delay`` on SQL Server, and everything on Redshift.

**The driver** is searched for on Spark's class path, then in ``connection.jars`` (files, folders or
URIs that Spark can read), then among ``connection.packages``, which Spark fetches from Maven. If
Spark is already running, they are added to its session, but then Spark cannot return a driver's
exceptions from its executors; so on Glue prefer ``--extra-jars``, on EMR ``spark.jars``.
``connection.driver`` names the class if the URL does not imply it, and ``connection.properties``
override the driver's default properties.

**Rows.** ``split.fetch_rows`` rows are fetched at a time, fewer if rows are wide. Each driver is
configured to respect that: PostgreSQL's runs without autocommit (Spark does that),
MySQL's with ``useCursorFetch``, SQL Server's with ``responseBuffering``. Sessions are read-only
where the database has a setting for it (PostgreSQL, Redshift, MySQL, MariaDB, HSQLDB); elsewhere
use a user without write privileges. ``connection.session_init`` replaces that setting, for
example by an isolation level.

**Row policies.** PostgreSQL tables whose row-level security hides rows from the user are refused,
unless ``row_security: apply`` allows it. The row policies of SQL Server, Oracle (VPD) and Redshift
are not detected, and the rows that they hide are missing: read as a user exempt from them.

**No shared snapshot:** each split reads when its turn comes. A row whose split column changes
meanwhile may arrive twice or not at all. The source counts before and after; the run fails only if
it read fewer rows than both counts. Split by a column that never changes, or set
``split.strategy: none``.

**Splits.** ``range`` has the database compute quantiles of ``split.column`` (``ntile``), which
reads the column once, ideally through an index. Derby and HSQLDB have no ``ntile``, so there the
range of integers, dates and timestamps is cut evenly. ``hash`` takes integers, and texts if the
database has a hash function; each split scans the table. So does ``rowid``, which only Oracle has.
``auto`` takes the first column of the primary key, if the table is larger than one split. The
bounds are part of the statements, which Spark shows in its UI and event log: do not split by a
sensitive column.

**Dates and times** are fetched as text that the server formats, because JDBC's own classes read
them in the JVM's time zone and shift times that daylight saving skips. So values do not depend on
any zone, and a value finer than a microsecond, infinite or in year 0 is detected. A watermark is
truncated to the microsecond: a newer row in the same microsecond is extracted by the next run.

**A query** is placed in a FROM clause, where SQL Server accepts neither ``with`` nor ``order by``.
Comments in it are refused, because databases disagree on where they end.

**Deduplication** by ``columns.key`` (``watermark.lag``, a backfill) holds keys of committed rows in
memory, four million at most.
"""

"""Any database with a JDBC driver, read by Spark: SQL Server, Oracle, Redshift and all the others.

``jdbc`` takes any URL; of Derby, H2, HSQLDB, MariaDB, MySQL, Oracle, PostgreSQL, Redshift and SQL
Server the dialect is known by the URL, any other is spoken to in standard SQL. PostgreSQL and
MySQL have sources of their own, which are faster and know more types.

**Unverified.** No real Oracle, SQL Server or Redshift was at hand. Their dialects follow the
documentation; those of Oracle and SQL Server are also run against H2, which imitates them. What H2
lacks has never run: ``rowid`` splits, hashes of texts on SQL Server and Redshift, ``rowversion``,
the servers' clocks for ``watermark.delay`` on SQL Server, and everything of Redshift.

**The driver** is looked for on Spark's class path, then in ``connection.jars`` (files, folders or
URIs that Spark can read), then among ``connection.packages``, which Spark fetches from Maven. A
Spark that the extract starts itself has them from its start. To a session that runs already they
are added; Spark then cannot take a driver's exceptions back from its executors, so on Glue prefer
``--extra-jars``, on EMR ``spark.jars``. ``connection.driver`` names the class where the URL does
not tell it, and ``connection.properties`` go to the driver, over those that it is given anyway.

**Rows.** ``split.fetch_rows`` are fetched at a time, fewer where rows are wide. Each driver is
told what it needs for that to count: PostgreSQL's runs without autocommit (Spark sees to it),
MySQL's with ``useCursorFetch``, SQL Server's with ``responseBuffering``. Sessions are read-only
where the database has a setting for it (PostgreSQL, Redshift, MySQL, MariaDB, HSQLDB); elsewhere
give the user no right to write. ``connection.session_init`` takes the place of that setting: an
isolation level, for example.

**No snapshot** is shared: each split reads when its turn comes. A row whose split column changes
meanwhile may come twice or not at all. The source counts before and after; only fewer rows than
both counts fail the run. Split by what never changes, or set ``split.strategy: none``.

**Splits.** ``range`` has the database compute quantiles of ``split.column`` (``ntile``), which
reads the column once, best through an index; Derby and HSQLDB have no ``ntile``, so there the
range of integers, dates and timestamps is cut evenly. ``hash`` takes integers, and texts where the
database has a hash; each split scans the table. So it does for ``rowid``, which is Oracle's alone.
``auto`` takes the first column of the primary key, where the table is larger than one split. The
bounds stand in the statements, which Spark shows in its UI and event log: do not cut by a column
that nobody may see.

**Dates and times** are fetched as text that the server makes, because JDBC's own classes read them
in the JVM's time zone, and shift what a change to summer time leaves out. So what they are does
not depend on any zone, and a value finer than a microsecond, infinite or of year 0 is found. A
watermark is cut to the microsecond: a newer row of the same microsecond comes with the next one.

**A query** stands in a FROM clause, where SQL Server takes neither ``with`` nor ``order by``; of
comments in it nobody knows where they end, so there are none.

**Deduplication** by ``columns.key`` (``watermark.lag``, a backfill) holds keys of committed rows in
memory, four million at most.
"""

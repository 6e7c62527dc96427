"""Any database with a JDBC driver, read by Spark: SQL Server, Oracle, Redshift. See `source`."""

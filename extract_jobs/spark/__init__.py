"""The Spark session that splits run on, and the Java that starts it.

Promises that Spark's errors are mapped to ours. Imports only `extract_jobs.errors`; pyspark is
imported when a session is first needed.
"""

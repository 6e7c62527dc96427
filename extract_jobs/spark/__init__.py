"""The Spark session that splits run on, and the Java that it is started with.

Promises that Spark's errors arrive as ours. Imports `extract_jobs.errors` alone; pyspark is
imported when a session is first asked for.
"""

"""One attempt of a run: its splits, its commit and its report.

Promises that a failed attempt leaves the target as it was, and that there is a report either way.
It connects the stations, so it may import all of them; only `extract_jobs.run` imports it.
"""

"""One attempt of a run: its splits, its commit and its report.

Promises that an attempt which fails leaves the target as it was, and that a report is left either
way. Ties the stations together, so it may import all of them; only `extract_jobs.run` imports it.
"""

"""What is published about a run: report, metrics, logs and progress.

Promises one shape of report for the status handler and for people, without secrets and below
200 KB. Imports only `extract_jobs.errors`.
"""

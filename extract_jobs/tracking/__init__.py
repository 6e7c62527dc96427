"""The tracking table, and the outcome of a table after its job has ended.

Promises that an older attempt never overwrites a newer one, and that a success is never taken back.
Everything here runs in the Lambda functions, but for the heartbeat, which runs beside a worker's
extract. It imports `config`, `commit`, `reporting` and layers below them.
"""

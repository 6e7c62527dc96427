"""Runs splits, in this process, on a pool of processes or on Spark: each becomes staged files.

Promises at most as many parallel reads as connections are allowed, the first error as the source
raised it, and no staged file left behind when a run is interrupted. Imports `sources`, `parquet`,
`commit` and layers below them.
"""

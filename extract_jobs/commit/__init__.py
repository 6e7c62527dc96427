"""The commit log of a table: what is published, and which rows it holds.

Promises that a run killed at any instruction publishes all of its files or none, and that a rerun
publishes them once. Imports `transform`, `storage` and `spec`.
"""

"""Iceberg tables: publishing a commit is one snapshot, which readers see at one instant.

Promises that a commit's snapshot is made once, however many processes try and whoever else writes
to the table. Imports `transform`, `storage` and `spec`, and pyiceberg only when a table is used.
"""

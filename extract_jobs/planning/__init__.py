"""Decides what a run extracts, before a row is read: base commit, schema, interval, new files.

Promises that all attempts of a run extract the same interval onto the same base. Reads the commit
log and the source's catalog; imports `commit`, `sources`, `transform` and layers below them.
"""

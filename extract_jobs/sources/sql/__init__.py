"""What the SQL sources have in common.

`source` has the queries that all of them need, `columns` what a dialect defines for a column,
`statements` the SQL that is the same everywhere, `splits` ranges of a column's values. Each source
adds what differs: literals, the catalog, how a snapshot is held, how rows are read.
"""

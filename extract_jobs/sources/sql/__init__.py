"""What the sources that speak SQL have in common.

`source` has the questions that every one of them answers, `columns` what a dialect has to say about
a column, `statements` the SQL that all write alike, `splits` ranges of a column's values. A source
of its own adds its difference: literals, the catalogue, how a snapshot is held, how rows are read.
"""

"""Turns batches as the source returns them into batches as the files hold them.

Promises that no value changes silently: a value that does not fit a column's type is rejected, or
turned into NULL or text if the spec allows it, and counted. Imports neither `sources` nor
`storage`.
"""

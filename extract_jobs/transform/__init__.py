"""From batches as the source returns them to batches as the files hold them.

Promises that no value is changed in silence: a value which a column's type cannot hold is
rejected, or turned into NULL or text where the spec allows it, and counted. Knows neither sources
nor storage.
"""

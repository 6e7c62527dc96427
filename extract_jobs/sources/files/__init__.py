"""Files in S3 or a local folder: CSV, JSON lines and Parquet. See `source`.

`files.glob` names a table's files below `connection.uri`; a table has files of one format. Columns
and types are those of all files together, by name, and every value was looked at: [a page of its
own](files.md) tells how. Credentials are those of the storage, as for targets.

`mode: incremental` needs no watermark: it extracts the files that are new or were replaced since
the last commit, each once and in whole. A file that is replaced or deleted while it is read fails
the attempt, and the next one lists again: every GET carries the ETag that was listed, and of a
local file the time of modification and the size are compared.

One split reads many small files. Large Parquet is cut by row group, large plain CSV and JSON lines
at records, also where quotes hold newlines; a compressed file is one split's. `query` and `where`
are refused: no server reads the rows. With types inferred, and for Parquet, rows are reconciled
with those that planning counted.
"""

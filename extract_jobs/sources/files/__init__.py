"""Files in S3 or a local folder: CSV, JSON lines and Parquet.

`files.glob` names a table's files below `connection.uri`; all files of a table have one format.
Columns are matched by name over all files, and types hold every value: see [files](files.md).
Credentials are those of the storage, as for targets.

`mode: incremental` needs no watermark: it extracts the files that are new or were replaced since
the last commit, each once and as a whole. If a file is replaced or deleted while it is read, the
attempt fails, and the next one lists again: every GET carries the ETag from the listing, and for a
local file the modification time and size are compared.

One split reads many small files. Large Parquet is cut by row group, large uncompressed CSV and JSON
lines between records, even if quotes contain newlines; a compressed file belongs to one split.
Splits are smaller than `split.target_bytes`, down to 32 MiB or 12 MiB of Parquet, if cores would
otherwise be idle.
`query` and `where` are refused: no server reads the rows. With inferred types, and for Parquet,
rows are reconciled with the number that planning counted.
"""

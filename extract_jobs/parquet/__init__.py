"""Writes batches as staged Parquet files, split by partition and rolled by size.

Promises bounded memory for any number of partitions, and files whose footers hold the rows that
were written. Imports `transform`, `storage` and `spec`.
"""

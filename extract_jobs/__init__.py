"""Pull tables from databases, files and APIs into an S3 data lake as partitioned Parquet."""

__version__ = "0.1.0"

"""Files in S3 or a local folder: CSV, JSON lines and Parquet, plain or compressed."""

"""The demo: the pipeline extracts a shop's database, and the Parquet is compared with it."""

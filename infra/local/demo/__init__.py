"""The demo: a shop's database, extracted by the pipeline, and its Parquet compared with it."""

"""SQLite: one file, read where it lies. See `source`."""

"""PostgreSQL, and what speaks its protocol and catalogue: Aurora, RDS. See `source`."""

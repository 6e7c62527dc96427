"""PostgreSQL, and services with its protocol and catalog: Aurora, RDS."""

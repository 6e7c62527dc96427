"""MySQL, MariaDB and Aurora MySQL, read through their own protocol straight into Arrow."""

"""A mirror in a PostgreSQL database; needs the extra `postgres`. Imported when such a database is named."""

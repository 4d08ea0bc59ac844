"""Where relationships, schemas and the changelog are kept: in memory, in SQLite, in PostgreSQL."""

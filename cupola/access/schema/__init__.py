"""Schemas: one internal model, two languages that are read into it (`zed/`, `fga/`)."""

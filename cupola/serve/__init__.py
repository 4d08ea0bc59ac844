"""Serving: an engine for many requests at once, and the server, router and language in front of it."""

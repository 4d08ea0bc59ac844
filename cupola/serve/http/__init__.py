"""The OpenAI-compatible HTTP server: routes, limits, keys and shutdown in front of any `Generator`."""

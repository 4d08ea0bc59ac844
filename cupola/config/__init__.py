"""Values and their text: frozen values, one leaf per line, diff, overrides. Pure Python, no jax."""

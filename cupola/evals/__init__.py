"""Tasks and measures: how good what was trained is."""

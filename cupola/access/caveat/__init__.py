"""Conditions in CEL: compiled once, answered yes, no, or "it depends on these parameters"."""

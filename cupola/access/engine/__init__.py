"""Answers: check, explain, expand, lookups, over snapshots of a store."""

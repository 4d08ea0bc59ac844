"""Checkpoints: sharded, asynchronous, atomic, verified on read, with a manifest that a person can read."""

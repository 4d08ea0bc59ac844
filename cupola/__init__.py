"""Cupola: define, train, post-train and serve foundation models with one definition of each."""

__version__ = "0.1.0"

"""Families of models of others: of each a function that makes the model, and a table of names."""

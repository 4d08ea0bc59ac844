"""Recipes: functions that return an experiment; the only room that may see every other."""

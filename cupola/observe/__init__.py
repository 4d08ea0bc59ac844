"""Seeing what a run does: log, metrics, progress, profile, memory and FLOP accounts, where the time goes."""

"""Recordings: read and written, their level, their spectra and log-mel features, and back to sound."""

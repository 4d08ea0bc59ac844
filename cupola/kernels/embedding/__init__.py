"""Looking up rows of a table."""

from cupola.kernels.embedding.api import look_up as look_up

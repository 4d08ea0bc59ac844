"""What can go wrong in a program, beside what an engine refuses (`serve/errors.py`)."""

from cupola.core.errors import CupolaError

__all__ = ["BackendError", "ProgramError"]


class ProgramError(CupolaError, ValueError):
    """A program that says what cannot be, or asks its back-end for what that cannot do."""


class BackendError(CupolaError, RuntimeError):
    """A back-end that could not be reached, refused, or answered what it should not."""

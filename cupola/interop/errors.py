"""Why a model of others cannot be had, read or talked to; each says what to do instead.

Every one is a `CupolaError`, so the command line prints it without a traceback.
"""

from cupola.core.errors import CupolaError


class TemplateError(CupolaError, ValueError):
    """A chat template that is broken, refuses these messages, or asks for too much."""


class WeightsError(CupolaError, ValueError):
    """A weights file that is missing, truncated, corrupt, or of a kind that is not read."""


class FetchError(CupolaError, RuntimeError):
    """A named model that could not be downloaded, or was not what it should be."""


class UnknownModel(CupolaError, LookupError):
    """Neither a named model, nor a folder or file that holds one."""

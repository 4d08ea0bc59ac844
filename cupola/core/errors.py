"""The kinds of mistake that a user can make, by room; each says what to type instead.

Every one is a `CupolaError` (`config/errors.py`), so the command line prints it without a traceback.
"""

from cupola.config.errors import ConfigError, CupolaError, UnboundError

__all__ = [
    "AudioError",
    "CheckpointError",
    "ConfigError",
    "CupolaError",
    "DataError",
    "MeshError",
    "ShapeError",
    "TextError",
    "TokenizerError",
    "TrainingError",
    "UnboundError",
    "Unsupported",
]


class ShapeError(CupolaError, ValueError):
    """Shapes or widths that do not agree."""


class MeshError(CupolaError, ValueError):
    """A mesh that the devices cannot form, or a dimension that does not divide over it."""


class Unsupported(CupolaError, NotImplementedError):
    """A named implementation cannot honour its arguments; the message holds every reason."""


class DataError(CupolaError, ValueError):
    """A corpus that is missing, empty, binary or too small."""


class AudioError(DataError):
    """A recording that cannot be read, is of another rate, or holds no sound."""


class TextError(DataError):
    """Text that cannot be spoken."""


class TokenizerError(CupolaError, ValueError):
    """A tokenizer that cannot be read, or of another vocabulary than the model."""


class CheckpointError(CupolaError, RuntimeError):
    """A checkpoint that is missing, truncated or corrupt, or that could not be written."""


class TrainingError(CupolaError, RuntimeError):
    """A run that cannot go on: gradients that are not finite, or nothing to resume."""

"""What a user can get wrong in observing a run."""

from cupola.config.errors import CupolaError


class ObserveError(CupolaError, ValueError):
    """Records that cannot be read, or a step that does not fit the machine."""

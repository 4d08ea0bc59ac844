"""Where a norm rounds to the format of its rows, which models differ in."""

import enum


class Casting(enum.Enum):
    """What an RMS norm computes in float32; all are the same where rows are float32."""

    GEMMA = "gemma"
    """Everything, and the result is rounded once."""
    LLAMA = "llama"
    """The normalized row, which is rounded, and then scaled in the format of the rows."""
    NONE = "none"
    """Nothing but the sum of the squares."""

"""Pace: the same frames, faster or slower, so that speech keeps its pitch.

Frames are read between those that were made, as they come. Not here: how long a model speaks by itself.
Invariant: the same frames, however they come in parts; at speed 1 they are untouched.
"""

import math

import numpy as np
from jaxtyping import Float32

SLOWEST, FASTEST = 0.25, 4.0


class Pace:
    """Reads frames at a speed.

    Args:
        speed: frames of the source for each frame that is read.
    """

    def __init__(self, speed: float):
        self._speed = speed
        self._held: Float32[np.ndarray, "T M"] | None = None
        self._first = 0
        """The number, in the source, of the first frame that is held."""
        self._read = 0

    def feed(self, frames: Float32[np.ndarray, "T M"]) -> Float32[np.ndarray, "U M"]:
        """Returns what can be read once these frames are there."""
        if self._speed == 1:
            return frames
        self._held = frames if self._held is None else np.concatenate([self._held, frames])
        last = self._first + len(self._held) - 1
        return self._up_to(math.ceil(last / self._speed))

    def finish(self) -> Float32[np.ndarray, "U M"]:
        """Returns what is left: the last frame, and a second one where everything else was left out."""
        if self._held is None:
            return np.zeros((0, 0), np.float32)
        last = self._first + len(self._held) - 1
        return self._up_to(max(math.floor(last / self._speed) + 1, 2))

    def _up_to(self, stop: int) -> Float32[np.ndarray, "U M"]:
        held = self._held
        if held is None or stop <= self._read:
            return np.zeros((0, 0 if held is None else held.shape[1]), np.float32)
        places = np.arange(self._read, stop) * self._speed - self._first
        below = np.clip(np.floor(places).astype(int), 0, len(held) - 1)
        above = np.minimum(below + 1, len(held) - 1)
        share = np.clip(places - below, 0, 1)[:, None].astype(np.float32)
        made = (1 - share) * held[below] + share * held[above]
        self._read = stop
        gone = min(math.floor(stop * self._speed) - self._first, len(held) - 1)
        self._held, self._first = held[max(gone, 0) :], self._first + max(gone, 0)
        return made

"""Vocoders: what makes sound of a front end's frames, whether it has parameters or none.

Not here: those that are learned (`models/speech/vocoders.py`), and Griffin-Lim (`griffin_lim.py`).
Invariant: what `stream` yields, joined, is what `of` returns, to float32, however the frames come.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, Float32

from cupola.config.value import Value
from cupola.core.errors import AudioError
from cupola.core.module import Tree
from cupola.data.audio.clip import Clip
from cupola.data.audio.features import LogMel


class Vocoder(Value):
    """Turns the features of a front end into sound.

    Args:
        front: what made the features.
    """

    front: LogMel

    def specs(self) -> Tree:
        """Returns the tree of its `Param`s; {} where it has none."""
        return {}

    def of(self, features: Float[np.ndarray, "T M"], *, params: Tree, seed: int = 0) -> Clip:
        """Returns the sound of the features of one clip: the fewest samples that have T frames.

        Args:
            params: in the form of `specs`.
            seed: of what it draws, where it draws.

        Raises:
            AudioError: they are not [T, M] of this front end, or not finite.
        """
        raise NotImplementedError

    def stream(
        self, features: Iterable[Float[np.ndarray, "_ M"]], *, params: Tree, seed: int = 0
    ) -> Iterator[Float32[np.ndarray, " N"]]:
        """Yields the samples of one clip, whose features come a few frames at a time.

        One that needs all frames before it can begin yields once, at their end.

        Raises:
            AudioError: as `of`, of the frames that have come.
        """
        parts = list(features)
        if parts:
            yield self.of(np.concatenate(parts), params=params, seed=seed).samples

    def check_features(self, features: Float[np.ndarray, "..."]) -> None:
        """Checks that features are of this front end.

        Raises:
            AudioError: they are not [T, M], there is none, or one is not finite.
        """
        if features.ndim != 2 or features.shape[1] != self.front.bins or not len(features):
            raise AudioError(
                f"features of shape {features.shape}",
                remedy=f"Give [T, {self.front.bins}]: frames by bins of the front end.",
            )
        if not np.isfinite(features).all():
            raise AudioError("features that are not finite", remedy="What made them has diverged.")

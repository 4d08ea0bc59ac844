"""Mel-cepstral distortion: how far apart two utterances of the same text are, in dB, once they are aligned in time.

Not here: judges that listen. Invariant: an utterance is at 0 dB from itself; order does not matter; how
loud either is does not matter.
Source: Kubichek 1993 (the measure); Sakoe and Chiba 1978 (dynamic time warping, slope unconstrained);
13 coefficients after Battenberg et al. 2019, arXiv 1906.03402, section 4.1.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from cupola.core.errors import AudioError, ConfigError
from cupola.data.audio.features import LogMel, Spectrum

COEFFICIENTS = 13
_LEAST = 1e-10


def mel_cepstra(
    features: Float[np.ndarray, "T M"], front: LogMel, *, coefficients: int = COEFFICIENTS
) -> Float[np.ndarray, "T C"]:
    """Returns the coefficients c of each frame, without the first, which tells the level.

    The natural logarithm of the magnitude of bin m is c_0 / 2 + the sum over k of c_k cos(pi k (m + 1/2) / M).

    Raises:
        AudioError: the features are not [T, M] of this front end, or not finite.
    """
    if features.ndim != 2 or features.shape[1] != front.bins or not len(features):
        raise AudioError(
            f"features of shape {features.shape}",
            remedy=f"Give [T, {front.bins}]: frames by bins of the front end.",
        )
    if not np.isfinite(features).all():
        raise AudioError("features that are not finite", remedy="What made them has diverged.")
    if not 0 < coefficients < front.bins:
        raise ConfigError(
            f"{coefficients} coefficients of {front.bins} bins",
            where="coefficients",
            remedy=f"Use 1 to {front.bins - 1}.",
        )
    mel = np.asarray(front.compression.inverse(jnp.asarray(features, jnp.float32)), np.float64)
    logs = np.log(np.maximum(mel, _LEAST)) / (2 if front.spectrum is Spectrum.POWER else 1)
    angles = np.pi * np.outer(np.arange(front.bins) + 0.5, np.arange(1, coefficients + 1)) / front.bins
    return logs @ (np.cos(angles) * (2 / front.bins))


def aligned(
    one: Float[np.ndarray, "T C"], other: Float[np.ndarray, "U C"]
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Returns which frame of one goes with which of the other, from both first to both last.

    Of all ways that go on by a frame in one, in the other or in both, it is the one with the least sum of
    Euclidean distances; it moves in both where that is as good.

    Cost: T * U * C operations and 16 * T * U bytes.
    """
    far = _distances(one, other)
    rows, columns = far.shape
    # The diagonal d holds cells (i, d - i), each of which follows from the two diagonals before it.
    sums = np.full((rows + columns - 1, rows), np.inf)
    moves = np.zeros((rows + columns - 1, rows), np.int8)
    for d in range(rows + columns - 1):
        low, high = max(0, d - columns + 1), min(d, rows - 1) + 1
        own = far[np.arange(low, high), d - np.arange(low, high)]
        if d == 0:
            sums[0, 0] = own[0]
            continue
        up = np.arange(low, high) - 1
        before = np.stack(
            [
                np.where(up >= 0, sums[d - 2, up] if d > 1 else np.inf, np.inf),
                np.where(up >= 0, sums[d - 1, up], np.inf),
                sums[d - 1, low:high],
            ]
        )
        moves[d, low:high] = before.argmin(0)
        sums[d, low:high] = own + before.min(0)
    return _way_back(moves, rows, columns)


def mel_cepstral_distortion(
    one: Float[np.ndarray, "T M"],
    other: Float[np.ndarray, "U M"],
    front: LogMel,
    *,
    coefficients: int = COEFFICIENTS,
) -> float:
    """Returns the mean over aligned frames of 10 / ln 10 * sqrt(2 * sum of squared differences), in dB.

    Args:
        one, other: features of `front`, of the same text, of any lengths.

    Raises:
        AudioError: features that are not of this front end, or not finite.
    """
    first, second = (mel_cepstra(each, front, coefficients=coefficients) for each in (one, other))
    rows, columns = aligned(first, second)
    distances = np.sqrt(np.square(first[rows] - second[columns]).sum(-1))
    return float(10 / math.log(10) * math.sqrt(2) * distances.mean())


def _distances(one: Float[np.ndarray, "T C"], other: Float[np.ndarray, "U C"]) -> Float[np.ndarray, "T U"]:
    squares = np.square(one).sum(-1)[:, None] + np.square(other).sum(-1)[None]
    # Rounding may leave what is equal below 0.
    return np.sqrt(np.maximum(squares - 2 * one @ other.T, 0))


def _way_back(
    moves: Int[np.ndarray, "D T"], rows: int, columns: int
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    i, j = rows - 1, columns - 1
    way = [(i, j)]
    while i or j:
        match moves[i + j, i]:
            case 0:
                i, j = i - 1, j - 1
            case 1:
                i -= 1
            case _:
                j -= 1
        way.append((i, j))
    first, second = np.asarray(way[::-1]).T
    return first, second

"""Front ends: equal to a plain float64 one and to librosa's, the same at any length and in any batch."""

import json
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.config.text import parse, show
from cupola.core.errors import AudioError, ConfigError
from cupola.data.audio.clip import Clip
from cupola.data.audio.features import (
    CHECKPOINTS_22K,
    TACOTRON2,
    VOCODERS_22K,
    WHISPER,
    Compression,
    LastFrame,
    RangeCompression,
    Spectrum,
)

FRONTS = {"tacotron2": TACOTRON2, "checkpoints": CHECKPOINTS_22K, "vocoders": VOCODERS_22K, "whisper": WHISPER}
PEER = Path(__file__).parents[3] / ".venv-audio/bin/python"

LIBROSA = """
import json, sys
import librosa, numpy as np
options, given, made = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
samples = np.load(given).astype(options.pop("dtype"))
floor, power, margin, kind = (options.pop(name) for name in ("floor", "power", "margin", "kind"))
size, hop, window = (options.pop(name) for name in ("n_fft", "hop", "window"))
padded = np.pad(samples, margin, mode="reflect")
spectrum = np.abs(librosa.stft(padded, n_fft=size, hop_length=hop, win_length=window, center=False)) ** power
mel = librosa.filters.mel(n_fft=size, dtype=samples.dtype, **options) @ spectrum
logs = np.maximum(mel, floor)
logs = np.log(logs) if kind == "natural" else np.log10(logs)
np.save(made, logs.T)
"""


def speech(rate_hz, seconds=0.8):
    """Gliding harmonics with pauses over a little noise."""
    times = np.arange(round(rate_hz * seconds)) / rate_hz
    glide = 2 * np.pi * (120 * times + 40 * times**2)
    voiced = sum(np.sin(k * glide) / k for k in range(1, 30)) * np.maximum(0, np.sin(5 * times))
    noise = np.random.default_rng(0).standard_normal(len(times))
    return Clip((0.2 * voiced + 1e-3 * noise).astype(np.float32), rate_hz)


def plain(front, samples, dtype):
    """The bins before compression, frame by frame, in the precision of `dtype`."""
    stft = front.stft
    padded = np.pad(samples.astype(dtype), stft.margin, mode="reflect")
    starts = range(0, len(padded) - stft.size + 1, stft.hop)
    weights = stft.weights().astype(dtype)
    size = np.abs(np.stack([np.fft.rfft(padded[start : start + stft.size] * weights) for start in starts]))
    kept = size[:-1] if front.last_frame is LastFrame.DROPPED else size
    return kept**front.spectrum.value @ front.filters().astype(dtype).T


def compressed(front, mel):
    logs = np.maximum(mel, front.compression.floor)
    if isinstance(front.compression, RangeCompression):
        logs = np.log10(logs)
        return (np.maximum(logs, logs.max() - 8) + 4) / 4
    return np.log(logs)


@pytest.mark.parametrize("name", FRONTS)
def test_equal_to_the_plain_formula(name):
    front = FRONTS[name]
    clip = speech(front.rate_hz)
    true = compressed(front, plain(front, clip.samples, np.float64))
    allowed = 2 * np.abs(compressed(front, plain(front, clip.samples, np.float32)) - true).max()
    made = front.of(clip)
    assert made.shape == true.shape == (front.frames(len(clip.samples)), 80)
    assert made.dtype == np.float32
    assert np.abs(made - true).max() <= allowed
    # The check can fail: another scale of pitch is far away.
    other = front.replace("mel.low_hz", 60.0)
    assert np.abs(other.of(clip) - true).max() > 100 * allowed


@pytest.mark.parametrize("name", FRONTS)
def test_equal_to_librosa(name, tmp_path):
    if not PEER.exists():
        pytest.skip("needs librosa: bench/setup audio")
    front = FRONTS[name]
    clip = speech(front.rate_hz)
    np.save(tmp_path / "given.npy", clip.samples)
    options = {
        "sr": front.rate_hz,
        "n_fft": front.stft.size,
        "hop": front.stft.hop,
        "window": front.stft.window or front.stft.size,
        "margin": front.stft.margin,
        "n_mels": front.mel.bins,
        "fmin": front.mel.low_hz,
        "fmax": front.mel.high_hz,
        "htk": front.mel.scale.value == "htk",
        "norm": "slaney" if front.mel.norm.value == "area" else None,
        "power": front.spectrum.value,
        "floor": front.compression.floor,
        "kind": "decimal" if name == "whisper" else "natural",
    }
    told = {}
    for dtype in ("float32", "float64"):
        target = tmp_path / f"{dtype}.npy"
        arguments = [json.dumps(options | {"dtype": dtype}), str(tmp_path / "given.npy"), str(target)]
        subprocess.run([PEER, "-c", LIBROSA, *arguments], check=True, timeout=300)
        logs = np.load(target)
        if name == "whisper":
            kept = logs[:-1]
            logs = (np.maximum(kept, kept.max() - 8) + 4) / 4
        told[dtype] = logs
    # librosa's own error in float32.
    allowed = 2 * np.abs(told["float32"] - told["float64"]).max()
    error = np.abs(front.of(clip) - told["float64"]).max()
    assert error <= allowed, (error, allowed)


@pytest.mark.parametrize("name", FRONTS)
def test_the_same_at_any_length_and_in_any_batch(name):
    front = FRONTS[name]
    clips = [Clip(speech(front.rate_hz).samples[: 9_000 + 37 * i], front.rate_hz) for i in range(2)]
    shorter = clips[0].samples
    direct = jax.jit(front.__call__)
    np.testing.assert_array_equal(front.of(clips[0]), direct(jnp.asarray(shorter)))
    together = direct(jnp.stack([jnp.asarray(shorter), jnp.asarray(shorter[::-1].copy())]))
    np.testing.assert_array_equal(together[0], front.of(clips[0]))
    assert len(front.of(clips[1])) == front.frames(len(clips[1].samples))


def test_numbers_of_frames():
    assert TACOTRON2.frame_seconds == 0.0125
    assert TACOTRON2.stft.window == 0.05 * TACOTRON2.rate_hz
    assert WHISPER.frames(30 * 16_000) == 3_000
    assert CHECKPOINTS_22K.frames(22_050) == 22_050 // 256 + 1
    assert VOCODERS_22K.frames(100 * 256) == 100
    for front in FRONTS.values():
        assert front.frames(front.samples(7)) == 7


def test_compressions_are_inverted_above_their_floor():
    mel = jnp.asarray([[0.02, 1.0, 30.0]])
    for compression in (Compression(floor=0.01), RangeCompression()):
        np.testing.assert_allclose(compression.inverse(compression(mel)), mel, rtol=1e-5)
    assert Compression(floor=0.01)(jnp.asarray([[0.0]])).item() == pytest.approx(np.log(0.01))


def test_gradients_are_numbers_even_of_silence():
    for front in FRONTS.values():
        assert np.isfinite(jax.grad(lambda x, f=front: f(x).sum())(jnp.zeros(4096))).all()
    slope = jax.grad(lambda x: WHISPER(x).sum())(jnp.asarray(speech(16_000).samples[:4096]))
    assert np.isfinite(slope).all()
    assert slope.any()


def test_a_front_end_is_its_text():
    for front in FRONTS.values():
        assert parse(show(front)) == front
    assert WHISPER.replace("mel.bins", 128).bins == 128


def test_the_wrong_rate_is_named_with_the_right_one():
    with pytest.raises(AudioError, match="16000 samples a second, where this front end takes 24000") as caught:
        TACOTRON2.of(speech(16_000))
    assert "at_rate(24000)" in caught.value.remedy


def test_what_is_too_short_says_how_long():
    with pytest.raises(AudioError, match="at least 43 ms"):
        TACOTRON2.of(Clip(np.zeros(1000, np.float32), 24_000))


def test_front_ends_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="reach 8000 Hz"):
        WHISPER.replace("mel.high_hz", 8001.0)
    with pytest.raises(ConfigError, match="logarithm of 0"):
        Compression(floor=0.0)
    assert CHECKPOINTS_22K.spectrum is Spectrum.MAGNITUDE

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
from cupola.data.audio.mel import Norm, Scale

FRONTS = {"tacotron2": TACOTRON2, "checkpoints": CHECKPOINTS_22K, "vocoders": VOCODERS_22K, "whisper": WHISPER}
PEER = Path(__file__).parents[3] / ".venv-audio/bin/python"

LIBROSA = """
import json, sys
import librosa, numpy as np
for case in json.loads(sys.argv[1]):
    samples = np.load(case["given"]).astype(np.float64)
    padded = np.pad(samples, case["margin"], mode="reflect")
    spectrum = np.abs(librosa.stft(padded, center=False, **case["stft"])) ** case["power"]
    np.save(case["made"], (librosa.filters.mel(dtype=np.float64, **case["mel"]) @ spectrum).T)
"""


def speech(rate_hz, seconds=0.8):
    """Gliding harmonics with pauses over a little noise."""
    times = np.arange(round(rate_hz * seconds)) / rate_hz
    glide = 2 * np.pi * (120 * times + 40 * times**2)
    voiced = sum(np.sin(k * glide) / k for k in range(1, 30)) * np.maximum(0, np.sin(5 * times))
    noise = np.random.default_rng(0).standard_normal(len(times))
    return Clip((0.2 * voiced + 1e-3 * noise).astype(np.float32), rate_hz)


def plain(front, samples, dtype):
    """The bins before compression, each frame times each wave, in the precision of `dtype`."""
    stft = front.stft
    padded = np.pad(samples.astype(dtype), stft.margin, mode="reflect")
    starts = range(0, len(padded) - stft.size + 1, stft.hop)
    framed = np.stack([padded[start : start + stft.size] for start in starts]) * stft.weights().astype(dtype)
    turns = -2 * np.pi * np.outer(np.arange(stft.size), np.arange(stft.bins)) / stft.size
    size = np.hypot(framed @ np.cos(turns).astype(dtype), framed @ np.sin(turns).astype(dtype))
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


def case_of(front, given, made):
    stft, mel = front.stft, front.mel
    return {
        "given": str(given),
        "made": str(made),
        "margin": stft.margin,
        "power": front.spectrum.value,
        "stft": {"n_fft": stft.size, "hop_length": stft.hop, "win_length": stft.window or stft.size},
        "mel": {
            "sr": front.rate_hz,
            "n_fft": stft.size,
            "n_mels": mel.bins,
            "fmin": mel.low_hz,
            "fmax": mel.high_hz,
            "htk": mel.scale is Scale.HTK,
            "norm": "slaney" if mel.norm is Norm.AREA else None,
        },
    }


def test_equal_to_librosa(tmp_path):
    if not PEER.exists():
        pytest.skip("needs librosa: bench/setup audio")
    cases = []
    for name, front in FRONTS.items():
        np.save(tmp_path / f"{name}.npy", speech(front.rate_hz).samples)
        cases.append(case_of(front, tmp_path / f"{name}.npy", tmp_path / f"{name}.made.npy"))
    subprocess.run([PEER, "-c", LIBROSA, json.dumps(cases)], check=True, timeout=500)
    for name, front in FRONTS.items():
        clip = speech(front.rate_hz)
        true = compressed(front, np.load(tmp_path / f"{name}.made.npy")[: front.frames(len(clip.samples))])
        rough = compressed(front, plain(front, clip.samples, np.float32))
        assert np.abs(front.of(clip) - true).max() <= 2 * np.abs(rough - true).max(), name


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

import jax.numpy as jnp
import numpy as np
import pytest

from cupola.core.errors import AudioError, ConfigError, TrainingError
from cupola.data.audio.clip import Clip
from cupola.data.audio.features import LogMel
from cupola.data.audio.griffin_lim import GriffinLim
from cupola.data.audio.mel import MelFilters
from cupola.data.audio.segments import Sounding
from cupola.data.audio.spectrum import Stft
from cupola.train.speech.vocoder_score import (
    Shown,
    VocoderEvaluation,
    VocoderEvaluator,
    WaveNetEvaluation,
    distances,
    keep_samples,
)

RATE = 8000
FRONT = LogMel(rate_hz=RATE, stft=Stft(size=128, hop=32), mel=MelFilters(bins=12, low_hz=0.0, high_hz=4000.0))
TIME = np.arange(4000) / RATE
NOISE = np.random.default_rng(0).normal(0, 0.01, 4000)


def tone(hertz, phase=0.0):
    return Clip((0.5 * np.sin(2 * np.pi * hertz * TIME + phase) + NOISE).astype(np.float32), RATE)


def sounding(clip):
    return Sounding(np.rint(clip.samples * 2**15).astype(np.int16), FRONT.of(clip))


class Copying(GriffinLim):
    """A vocoder that knows what it should make."""

    def of(self, features, *, params=None, seed=0):
        return Clip(np.asarray(params)[: self.front.samples(len(features))], RATE)


def evaluator(clip, vocoder, **fields):
    sounds = {name: sounding(clip) for name in ("a", "b", "c")} | {"short": sounding(Clip(clip.samples[:500], RATE))}
    return VocoderEvaluator(vocoder, VocoderEvaluation(**fields), sounds, lambda params: params["it"])


def test_distances_hear_pitch_and_no_phase():
    true = tone(1000.0)
    none, turned, other = (distances(made, true, FRONT) for made in (true, tone(1000.0, 1.0), tone(1200.0)))
    assert none == {"mel": 0.0, "spectra": 0.0}
    for name in none:
        assert turned[name] < 0.3 * other[name]


def test_a_vocoder_that_is_right_is_at_no_distance_and_each_recording_counts_once():
    clip = tone(500.0)
    made = evaluator(clip, Copying(front=FRONT), clips=2, most_seconds=0.4)
    params = {"it": jnp.asarray(np.rint(clip.samples * 2**15).astype(np.float32) / 2**15)}
    score, whole = made.sample(params), made.all(params)
    assert score.metrics == {"held_out_mel": 0.0, "held_out_spectra": 0.0}
    assert [heard.name for heard in score.heard] == ["a", "b"]
    assert [heard.name for heard in whole.heard] == ["a", "b", "c"]  # the short one has no spectrum
    assert len(score.heard[0].made.samples) == FRONT.samples(int(0.4 * RATE / 32))
    assert score.text() == "log-mel frames 0.000 and spectra 0.000 from the recordings"
    wrong = made.sample({"it": jnp.asarray(tone(900.0).samples)})
    assert wrong.means["mel"] > 0.1
    assert wrong.means["spectra"] > 0.5


class Sink:
    def __init__(self):
        self.told = []

    def write(self, step, metrics): ...
    def image(self, name, array, step): ...
    def close(self): ...

    def audio(self, name, samples, rate, step):
        self.told.append((name, step, float(abs(samples).max())))


def test_recordings_are_shown_once_and_what_is_made_each_time():
    clip, sink = tone(500.0), Sink()
    score = evaluator(clip, Copying(front=FRONT), clips=1).sample({"it": jnp.asarray(3 * clip.samples)})
    hook = Shown(sink)
    for step in (1, 2):
        hook.after_evaluation(step, score)
    assert [(name, step) for name, step, _ in sink.told] == [
        ("recording/a", 1),
        ("vocoder/a", 1),
        ("vocoder/a", 2),
    ]
    assert max(peak for *_, peak in sink.told) <= 1.0


def test_samples_are_kept(tmp_path):
    clip = tone(500.0)
    score = evaluator(clip, Copying(front=FRONT), clips=2).sample({"it": jnp.asarray(clip.samples)})
    keep_samples(tmp_path / "samples", score)
    names = {path.name for path in (tmp_path / "samples").iterdir()}
    assert names == {"a.wav", "a-recording.wav", "b.wav", "b-recording.wav"}
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="could not be written"):
        keep_samples(tmp_path / "file", score)


def test_clips_that_cannot_be_compared_are_refused():
    with pytest.raises(AudioError, match="Cut one to the length of the other"):
        distances(tone(500.0), Clip(tone(500.0).samples[:-1], RATE), FRONT)
    short = Clip(tone(500.0).samples[:1000], RATE)
    with pytest.raises(AudioError, match="1000 samples are too short\nGive at least 1025"):
        distances(short, short, FRONT)


def test_recordings_too_short_to_be_scored_are_refused():
    short = {"short": sounding(Clip(tone(500.0).samples[:500], RATE))}
    with pytest.raises(ConfigError, match="none of 1 held-out recordings has 1025 samples\nHold out more"):
        VocoderEvaluator(Copying(front=FRONT), VocoderEvaluation(), short, lambda params: params)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (VocoderEvaluation, {"clips": 0}, "clips: clips=0"),
        (VocoderEvaluation, {"most_seconds": 0.0}, "most_seconds=0.0"),
        (WaveNetEvaluation, {"heard": 0}, "heard: heard=0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(kind, fields, message):
    with pytest.raises(ConfigError, match=message):
        kind(**fields)

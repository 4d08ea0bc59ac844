"""Sound that is sent while it is made: one file when joined, its first bytes long before the last samples."""

import io

import numpy as np
import pytest

from cupola.data.audio.files import decode
from cupola.data.audio.streams import PCM_RATE_HZ, Streaming, encoder

av = pytest.importorskip("av")
soundfile = pytest.importorskip("soundfile")
RATE = 22_050


def sound(seconds=2.0):
    times = np.arange(round(RATE * seconds)) / RATE
    return (0.5 * np.sin(2 * np.pi * 330 * times)).astype(np.float32)


def sent(form, samples, piece=1000):
    made = encoder(form, RATE)
    pieces = [made.feed(samples[at : at + piece]) for at in range(0, len(samples), piece)]
    return [*pieces, made.finish()]


@pytest.mark.parametrize("form", [Streaming.WAV, Streaming.FLAC])
def test_what_loses_nothing_comes_back_as_it_was_sent(form):
    samples = sound()
    clip = decode(b"".join(sent(form, samples)))
    assert clip.rate_hz == RATE
    np.testing.assert_allclose(clip.samples, samples, atol=2**-15)


@pytest.mark.parametrize("form", [Streaming.MP3, Streaming.AAC, Streaming.OPUS])
def test_what_loses_something_sounds_the_same(form):
    samples = sound()
    clip = decode(b"".join(sent(form, samples)))
    spectrum = np.abs(np.fft.rfft(clip.samples[: clip.rate_hz]))
    assert abs(int(spectrum.argmax()) - 330) <= 1
    assert abs(clip.seconds - 2.0) < 0.15
    middle = clip.samples[clip.rate_hz // 2 : clip.rate_hz]
    assert abs(np.sqrt(np.square(middle).mean()) - 0.5 / np.sqrt(2)) < 0.02


def test_pcm_is_at_the_rate_that_clients_expect():
    pieces = b"".join(sent(Streaming.PCM, sound()))
    samples = np.frombuffer(pieces, "<i2")
    assert len(samples) == 2 * PCM_RATE_HZ
    assert int(np.abs(np.fft.rfft(samples[:PCM_RATE_HZ])).argmax()) == 330


@pytest.mark.parametrize("form", Streaming)
def test_bytes_come_while_samples_still_do(form):
    pieces = sent(form, sound())
    heard = next(number for number in range(len(pieces)) if len(b"".join(pieces[: number + 1])) > 1000)
    assert heard < 0.4 * len(pieces)
    assert len(pieces[-1]) < 0.3 * len(b"".join(pieces))


def test_pieces_of_any_length_give_the_same_bytes():
    samples = sound(0.5)
    for form in (Streaming.WAV, Streaming.FLAC, Streaming.MP3):
        assert b"".join(sent(form, samples, 77)) == b"".join(sent(form, samples, 4096))


def test_libsndfile_reads_a_wav_of_unknown_length():
    samples, rate = soundfile.read(io.BytesIO(b"".join(sent(Streaming.WAV, sound()))))
    assert (len(samples), rate) == (2 * RATE, RATE)


def test_samples_above_full_scale_do_not_turn_around():
    loud = np.full(200, 3.0, np.float32)
    assert decode(b"".join(sent(Streaming.WAV, loud))).samples.min() > 0.99

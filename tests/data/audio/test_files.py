"""Sound files: read as they were written, to one channel at the rate that is wanted, or refused with the file's name."""

import io
import logging
import sys

import numpy as np
import pytest

from cupola.core.errors import AudioError, Unsupported
from cupola.data.audio.clip import Clip
from cupola.data.audio.files import Encoding, decode, encode, rate_of, read, write

av = pytest.importorskip("av")
soundfile = pytest.importorskip("soundfile")


def voice(rate_hz=24_000, seconds=1.0):
    times = np.arange(round(rate_hz * seconds)) / rate_hz
    return Clip((0.4 * np.sin(2 * np.pi * 300 * times) * np.sin(np.pi * times)).astype(np.float32), rate_hz)


def by_ffmpeg(clip, container, codec):
    """The bytes of a file in a format that libsndfile cannot write."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=clip.rate_hz, layout="mono")
        samples = np.rint(clip.samples * 2**15).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = clip.rate_hz
        resampled = av.AudioResampler(stream.codec_context.format, "mono", clip.rate_hz, frame_size=1024)
        for part in [*resampled.resample(frame), *resampled.resample(None), None]:
            file.mux(stream.encode(part))
    return buffer.getvalue()


def noise_db(made, wanted):
    length = min(len(made), len(wanted))
    error = made[:length] - wanted[:length]
    return 10 * np.log10(np.square(error).sum() / np.square(wanted[:length]).sum())


@pytest.mark.parametrize("encoding", [Encoding.WAV, Encoding.FLAC])
def test_sixteen_bits_come_back_as_they_were(encoding):
    every = (np.arange(-(2**15), 2**15) / 2**15).astype(np.float32)
    np.testing.assert_array_equal(decode(encode(Clip(every, 8000), encoding)).samples, every)


def test_floats_come_back_as_they_were_even_above_full_scale(caplog):
    clip = Clip(np.asarray([0.1, -3.0, 1e-9], np.float32), 8000)
    np.testing.assert_array_equal(decode(encode(clip, Encoding.WAV_FLOAT)).samples, clip.samples)
    assert not caplog.records


def test_what_must_be_cut_is_cut_aloud(caplog):
    with caplog.at_level(logging.WARNING):
        made = decode(encode(Clip(np.asarray([2.0, -2.0, 0.5], np.float32), 8000), Encoding.WAV))
    assert made.samples.tolist() == [1 - 2**-15, -1, 0.5]
    assert "cut 2 of 3 samples" in caplog.text


# How much noise a lossy codec may add to a plain tone; far above its own, far below a wrong scale or shift.
@pytest.mark.parametrize(("encoding", "limit_db"), [(Encoding.OGG, -20), (Encoding.OPUS, -10), (Encoding.MP3, -20)])
def test_lossy_formats_sound_alike(encoding, limit_db):
    clip = voice(seconds=1.5)
    made = decode(encode(clip, encoding))
    assert made.rate_hz == clip.rate_hz
    assert made.seconds == pytest.approx(clip.seconds, abs=0.06)
    assert noise_db(made.samples, clip.samples) < limit_db


def test_a_long_clip_is_written_in_pieces():
    assert decode(encode(voice(8000, 60), Encoding.OGG)).seconds == pytest.approx(60)


def test_g722_is_known_by_its_ending(tmp_path):
    clip = voice(16_000)
    path = tmp_path / "hello.g722"
    path.write_bytes(by_ffmpeg(clip, "g722", "g722"))
    made = read(path)
    assert made.rate_hz == 16_000
    delay = int(np.argmax(np.correlate(made.samples, clip.samples[:8000], "valid")[:100]))
    assert noise_db(made.samples[delay:], clip.samples) < -20


def test_what_people_send_is_read_too():
    clip = voice(24_000)
    made = decode(by_ffmpeg(clip, "webm", "libopus"), rate_hz=16_000)
    assert made.rate_hz == 16_000
    assert made.seconds == pytest.approx(1, abs=0.05)
    assert made.peak == pytest.approx(clip.peak, rel=0.1)


def test_channels_are_averaged_and_the_rate_is_the_one_wanted(tmp_path):
    left, right = voice().samples, 0.5 * voice().samples
    soundfile.write(tmp_path / "two.wav", np.stack([left, right], axis=1), 24_000, subtype="FLOAT")
    np.testing.assert_allclose(read(tmp_path / "two.wav").samples, 0.75 * left, atol=1e-7)
    assert read(tmp_path / "two.wav", rate_hz=8000).samples.shape == (8000,)


def test_a_file_is_written_by_its_ending(tmp_path):
    for ending in ("wav", "flac", "ogg"):
        write(voice(), tmp_path / f"a.{ending}")
        assert soundfile.info(tmp_path / f"a.{ending}").format == ending.upper()
    write(voice(), tmp_path / "a.wav", encoding=Encoding.WAV_FLOAT)
    assert soundfile.info(tmp_path / "a.wav").subtype == "FLOAT"
    assert {path.name for path in tmp_path.iterdir()} == {"a.wav", "a.flac", "a.ogg"}
    with pytest.raises(AudioError, match="'xyz'"):
        write(voice(), tmp_path / "a.xyz")


def test_a_rate_that_a_format_cannot_hold_is_named():
    with pytest.raises(AudioError, match="opus cannot hold 22050 Hz") as caught:
        encode(voice(22_050), Encoding.OPUS)
    assert "at_rate(48000)" in caught.value.remedy


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"the furnace is ready " * 99, "no sound that can be read"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "no s"),
    ],
)
def test_what_is_not_audio_is_refused_by_name(tmp_path, data, said):
    path = tmp_path / "speech.wav"
    path.write_bytes(data)
    with pytest.raises(AudioError, match=said) as caught:
        read(path)
    assert caught.value.where == str(path)


def test_a_file_without_samples_is_refused(tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), 8000)
    with pytest.raises(AudioError, match="no samples"):
        read(tmp_path / "none.wav")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(AudioError, match="No such file") as caught:
        read(tmp_path / "none.wav")
    assert caught.value.where == str(tmp_path / "none.wav")


def test_without_the_extra_it_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(Unsupported, match=r"cupola\[speech\]"):
        decode(b"RIFF")


def test_the_rate_of_a_file_is_told_without_decoding_it(tmp_path):
    write(voice(11_025), tmp_path / "a.flac")
    (tmp_path / "b.g722").write_bytes(by_ffmpeg(voice(16_000), "g722", "g722"))
    (tmp_path / "c.webm").write_bytes(by_ffmpeg(voice(48_000), "webm", "libopus"))
    assert [rate_of(tmp_path / name) for name in ("a.flac", "b.g722", "c.webm")] == [11_025, 16_000, 48_000]
    (tmp_path / "d.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError, match="d.wav: no sound that can be read"):
        rate_of(tmp_path / "d.wav")
    with pytest.raises(AudioError, match="gone.wav: cannot be read"):
        rate_of(tmp_path / "gone.wav")


def bomb(seconds=7200.0, rate_hz=8000):
    """A small file of long silence."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate_hz, 1, "PCM_16", format="FLAC") as file:
        for _ in range(round(seconds * rate_hz / 2**16)):
            file.write(np.zeros(2**16, np.int16))
    return buffer.getvalue()


def unsaid(flac):
    """The same file whose head does not say how long it lasts."""
    at = 4 + 4 + 13  # the marker, the block's head, and what stands before the count of 36 bits
    return flac[:at] + bytes([flac[at] & 0xF0]) + bytes(4) + flac[at + 5 :]


def test_a_small_file_of_hours_is_refused_while_it_is_decoded(monkeypatch):
    data = bomb()
    assert len(data) < 200_000
    read_samples = []
    inner = soundfile.SoundFile.read

    def counted(self, frames=-1, *args, **options):
        block = inner(self, frames, *args, **options)
        read_samples.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    for held in (data, unsaid(data)):
        read_samples.clear()
        with pytest.raises(AudioError, match=r"lasts more than 60 seconds\nSend at most 60 seconds at once"):
            decode(held, most_seconds=60.0)
        assert sum(read_samples) <= 60 * 8000 + 2**16
    assert decode(data, most_seconds=7300.0).seconds > 7000


def test_ffmpeg_is_stopped_too():
    held = by_ffmpeg(voice(seconds=3.0), "adts", "aac")
    with pytest.raises(AudioError, match="lasts more than 1 seconds"):
        decode(held, most_seconds=1.0)
    assert decode(held, most_seconds=4.0).seconds > 2.9


def test_a_file_that_does_not_say_how_long_it_lasts_is_read_to_its_end():
    flac = encode(voice(), Encoding.FLAC)
    np.testing.assert_array_equal(decode(unsaid(flac)).samples, decode(flac).samples)


def test_a_high_rate_counts_for_more():
    with pytest.raises(AudioError, match="lasts more than 0.5 seconds"):
        decode(encode(voice(96_000, 0.9), Encoding.WAV), most_seconds=1.0)

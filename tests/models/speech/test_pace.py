import numpy as np
import pytest

from cupola.models.speech.pace import Pace

FRAMES = np.random.default_rng(0).normal(0, 1, (50, 3)).astype(np.float32)


def read(speed, size):
    pace = Pace(speed)
    parts = [pace.feed(FRAMES[at : at + size]) for at in range(0, len(FRAMES), size)]
    return np.concatenate([part for part in [*parts, pace.finish()] if len(part)])


def test_at_its_own_speed_nothing_is_touched():
    np.testing.assert_array_equal(read(1.0, 7), FRAMES)


@pytest.mark.parametrize("speed", [0.25, 0.8, 1.3, 2.0, 4.0])
def test_frames_are_read_between_those_that_were_made(speed):
    made = read(speed, 50)
    places = np.arange(len(made)) * speed
    assert len(made) == int(49 / speed) + 1
    for column in range(3):
        expected = np.interp(places, np.arange(50), FRAMES[:, column])
        np.testing.assert_allclose(made[:, column], expected, atol=1e-5)


@pytest.mark.parametrize("speed", [0.25, 0.8, 1.3, 3.7])
@pytest.mark.parametrize("size", [1, 2, 16])
def test_the_parts_in_which_frames_come_do_not_matter(speed, size):
    np.testing.assert_allclose(read(speed, size), read(speed, 50), atol=1e-6)


def test_what_is_very_short_keeps_two_frames():
    pace = Pace(4.0)
    assert len(pace.feed(FRAMES[:2])) + len(pace.finish()) == 2

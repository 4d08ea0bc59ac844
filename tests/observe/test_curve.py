"""The picture: its size, that every part is drawn, and that odd numbers do not stop it."""

import math
import sys

import matplotlib.image
import numpy as np
import pytest

from cupola.observe.curve import plot

TRAIN = [(step, 2 + 4 * math.exp(-step / 20)) for step in range(200)]


@pytest.fixture
def draw(tmp_path):
    def draw(**parts):
        plot(tmp_path / "a" / "curve.png", **{"train": TRAIN, **parts})
        return matplotlib.image.imread(tmp_path / "a" / "curve.png")

    return draw


def test_size(draw):
    assert draw().shape[:2] == (600, 1000)


@pytest.mark.parametrize(
    "part",
    [
        {"held_out": [(0, 6.0), (100, 2.1), (200, 2.0)]},
        {"references": {"gzip -9": 2.184, "xz -9e": 2.062}},
        {"nats_per_unit": 2.3},
        {"title": "quickstart"},
        {"unit": "nats"},
    ],
)
def test_every_part_shows(draw, part):
    assert np.abs(draw(**part) - draw()).max() > 0.3


@pytest.mark.parametrize(
    "parts",
    [
        {"train": []},
        {"train": [(1, 3.0)]},
        {"train": [(1, math.nan)], "held_out": [(1, math.inf)]},
        {"train": [(s, 3.0) for s in range(5)]},
        {"train": [], "held_out": [(5, 2.0)], "references": {"one": 2.0}},
    ],
)
def test_little_or_nothing_to_draw_is_drawn(draw, parts):
    assert draw(**parts).shape[:2] == (600, 1000)


def test_pixels_hold_the_curve_where_it_ends(draw):
    image = draw(held_out=[(0, 6.0), (199, 2.0)])
    red = (image[..., 0] > 0.7) & (image[..., 1] < 0.3)
    assert red[:, 880:940].any(), "the last held-out point stands at the right end"


def test_no_global_state_is_touched(draw):
    draw()
    assert "matplotlib.pyplot" not in sys.modules

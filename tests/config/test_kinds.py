import pathlib

import pytest

from cupola.config import kinds
from cupola.config.errors import ConfigError


class Colour:
    def __init__(self, name):
        self.name = name


@pytest.fixture
def colour(monkeypatch):
    monkeypatch.setattr(kinds, "_BY_TYPE", dict(kinds._BY_TYPE))
    kinds.register(Colour, "colour", lambda c: c.name, Colour)
    return kinds.of(Colour)


def test_a_registered_kind_is_found_by_type_base_and_name(colour):
    assert kinds.named("colour") is colour
    assert kinds.of(type("Red", (Colour,), {})) is colour
    assert "colour" in kinds.names()
    assert kinds.of(int) is None
    assert kinds.named("nothing") is None


def test_the_nearest_base_decides():
    assert kinds.of(type(pathlib.Path("a"))).name == "path"
    assert kinds.of(pathlib.PurePosixPath).name == "posix_path"


def test_a_name_is_not_taken_twice(colour):
    kinds.register(Colour, "colour", str, Colour)
    with pytest.raises(ValueError, match="the kind 'colour' is taken by Colour"):
        kinds.register(bytearray, "colour", str, str)


def test_a_text_of_no_such_value_is_refused():
    kind = kinds.Kind(int, "whole", str, int)
    assert kind.read("3") == 3
    with pytest.raises(ConfigError, match="'x' is no whole"):
        kind.read("x")

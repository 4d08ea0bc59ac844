"""Logging for the command line: ours is heard, libraries are quiet."""

import io
import logging
import warnings

import pytest
from rich.console import Console

from cupola.observe.log import CONSOLE, set_up
from cupola.observe.progress import Progress


@pytest.fixture
def said():
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    level = root.level
    file = io.StringIO()
    yield lambda **options: (set_up(console=Console(file=file, width=80), **options), file)[1]
    logging.captureWarnings(False)
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("cupola").setLevel(logging.NOTSET)


def test_ours_is_heard_and_libraries_speak_from_warning_on(said):
    file = said()
    logging.getLogger("cupola.train").info("first step")
    logging.getLogger("absl").info("chatter")
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("absl").warning("take care")
    text = file.getvalue()
    assert "first step" in text
    assert "take care" in text
    assert "chatter" not in text


def test_the_level_is_that_of_ours(said):
    file = said(level=logging.DEBUG)
    logging.getLogger("cupola.train").debug("detail")
    logging.getLogger("jax").debug("chatter")
    assert "detail" in file.getvalue()
    assert "chatter" not in file.getvalue()
    file = said(level=logging.ERROR)
    logging.getLogger("cupola").warning("not this")
    assert "not this" not in file.getvalue()


def test_setting_up_twice_says_things_once(said):
    said()
    file = said()
    logging.getLogger("cupola").info("once")
    assert file.getvalue().count("once") == 1


def test_records_stand_above_a_live_display(said):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    set_up(console=console)
    with Progress("run", console=console) as progress:
        progress.update(7, 0.5, {"loss": 2.0})
        logging.getLogger("cupola").warning("look here")
    text = console.file.getvalue()
    assert 0 < text.index("look here") < text.rindex("step 7")
    assert Progress("run")._console is CONSOLE


def test_warnings_are_logged(said):
    file = said()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("look here", stacklevel=1)
    assert "look here" in file.getvalue()

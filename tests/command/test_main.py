import io
import sys

import pytest

from cupola import __version__
from cupola.command import main as commands
from cupola.core.errors import CupolaError

COMMANDS = [
    (), ("quickstart",), ("train",), ("complete",), ("eval",), ("config",), ("config", "show"), ("config", "diff"),
    ("doctor",), ("version",),
]  # fmt: skip


def test_the_version(cupola):
    assert cupola("version").out == f"{__version__}\n"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_explains_itself(cupola, words):
    ended = cupola(*words, "--help")
    assert ended.code == 0
    assert f"Usage: {' '.join(['cupola', *words])}" in ended.out
    assert "..." not in ended.out.replace("[ARGS]...", "").replace("[PATH=VALUE]...", "")  # nothing is cut off


@pytest.mark.parametrize(
    "words", [("qickstart",), ("complete",), ("train", "--stepz", "3"), ("eval", "--step", "x", "r")]
)
def test_what_cannot_be_read_is_exit_code_2(cupola, words):
    ended = cupola(*words)
    assert ended.code == 2
    assert "Usage: cupola" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("raised", "code", "printed"),
    [
        (
            CupolaError("it is [red]", where="here", remedy="Type :key:."),
            2,
            "error CupolaError\nhere: it is [red]\nType :key:.\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=["mistake", "Ctrl-C"],
)
def test_how_commands_end(cupola, monkeypatch, raised, code, printed):
    def fail(_):
        raise raised

    monkeypatch.setattr("cupola.command.config.book.find", fail)
    ended = cupola("config", "show", "quickstart")
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.endswith(printed)


def test_a_defect_of_ours_is_not_hidden(monkeypatch):
    def fail(_):
        raise ZeroDivisionError

    monkeypatch.setattr("cupola.command.config.book.find", fail)
    monkeypatch.setattr(sys, "argv", ["cupola", "config", "show", "quickstart"])
    with pytest.raises(ZeroDivisionError):
        commands.main()


def test_a_terminal_without_a_character_shows_a_question_mark(cupola, monkeypatch, config):
    path = config()
    path.write_text(path.read_text().replace("tiny", "t\u00efny\u2192"))
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", narrow)
    assert cupola("config", "show", path).code == 2
    narrow.seek(0)
    assert "t?ny?" in narrow.read()

"""How commands end. What a user can do wrong, as data: exit code 2, what is so, what to type, no traceback."""

import io
import os
import re
import subprocess
import sys

import pytest

from cupola import __version__
from cupola.command import main as commands
from cupola.core.errors import CupolaError
from cupola.data.tokenizer import Tokenizer

TEXT = "data.mixture.parts.0.source.path={}"

OVERRIDES = {
    "unknown": ("model.widht=32", "no field 'widht'", "Did you mean 'width'"),
    "no equals sign": ("model.width", "changes nothing", "path=value"),
    "wrong type": ("model.width=wide", "model.width", "int"),
    "filled in by a container": ("model.stack.block.attention.width=8", "filled in", "model.width"),
    "heads that do not divide": (
        "model.stack.block.attention.heads=6",
        "heads=6 does not divide width=16",
        "Use heads=",
    ),
    "key heads that do not divide": (
        "model.stack.block.attention.key_heads=3",
        "key_heads=3 does not divide heads=4",
        "Use key_heads=",
    ),
    "mesh larger than the machine": ("mesh.tensor=16", "needs 16 devices, but there are 8", "at most 8"),
    "mesh that does not divide": ("mesh.tensor=3", "does not divide", "Use"),
    "row longer than the model": ("data.length_tokens=65", "longer than model.max_length=64", "model.max_length=65"),
    "vocabulary without the bytes": ("model.vocabulary=100", "cannot hold the 256 bytes", "Use vocabulary=257"),
    "no run": ("budget.steps=0", "0 steps are no run", "Use 1 or more"),
    "a name that leaves the folder": ("name=../../x", "cannot name a folder", "Use letters"),
    "a missing tokenizer": ("data.tokenizer=missing.json", "missing.json: cannot be read", "tokenizer.json"),
}
TEXTS = {
    "missing": (None, "there is no such file or folder", "path exists"),
    "empty file": (b"", "the file is empty", "Name a file"),
    "empty folder": ({}, "no", "text"),
    "binary": (b"\x7fELF\0\0\1" * 99, "a binary file", "Name a text file"),
    "folder of binaries": ({"a": b"\0\1", "b": b"\0\2"}, "no", "text"),
    "another encoding": ("größer".encode("latin-1") * 99, "not UTF-8", "iconv"),
    "one character": (b"a", "too few to hold out", "characters"),
    "smaller than one row": (b"short " * 9, "fewer than one row of 32", "Use"),
}
COMMANDS = [
    (), ("quickstart",), ("train",), ("complete",), ("eval",), ("config",), ("config", "show"), ("config", "diff"),
    ("doctor",), ("version",), ("fetch",), ("serve",), ("chat",), ("bench",), ("bench", "serve"), ("keys",),
    ("keys", "make"), ("keys", "list"), ("keys", "revoke"), ("transcribe",), ("speak",), ("export",),
    ("eval", "text"), ("eval", "speech"),
]  # fmt: skip


def test_the_version(cupola):
    assert cupola("version").out == f"{__version__}\n"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_explains_itself(cupola, words):
    ended = cupola(*words, "--help")
    assert ended.code == 0
    assert f"Usage: {' '.join(['cupola', *words])}" in ended.out
    assert "..." not in re.sub(r"[\]}]\.\.\.", "", ended.out)  # nothing is cut off


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


def refused(ended, problem, remedy):
    """Checks the message, and that it is one."""
    assert ended.code == 2, ended
    assert problem in ended.err
    assert remedy in ended.err.split(problem, 1)[-1] + ended.err
    assert "Traceback" not in ended.err + ended.out
    return True


@pytest.mark.parametrize("case", OVERRIDES)
def test_a_change_that_cannot_be(cupola, config, tmp_path, case):
    edit, problem, remedy = OVERRIDES[case]
    assert refused(cupola("train", config(), edit, "--runs", tmp_path / "runs"), problem, remedy)
    assert not any((tmp_path / "runs").glob("*"))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("case", TEXTS)
def test_a_text_that_cannot_be_learnt_from(cupola, config, tmp_path, case):
    content, problem, remedy = TEXTS[case]
    path = tmp_path / "text"
    if isinstance(content, dict):
        path.mkdir()
        for name, held in content.items():
            (path / name).write_bytes(held)
    elif content is not None:
        path.write_bytes(content)
    assert refused(cupola("train", config(), TEXT.format(path), "--runs", tmp_path / "runs"), problem, remedy)
    assert not any((tmp_path / "runs").glob("*"))


@pytest.mark.parametrize("how", ["flip", "cut"])
def test_a_damaged_latest_checkpoint_is_passed_over_and_said(cupola, copied, damage, how):
    damage(copied, 12, how)
    ended = cupola("train", "--resume", copied)
    assert ended.code == 0
    assert "step-00000012" in ended.out.replace("\n", "")
    assert "going on from step 8" in ended.out
    assert cupola("complete", copied, "a", "--tokens", 2).code == 0


def test_no_whole_checkpoint_is_refused_and_all_stays(cupola, copied, damage):
    before = sorted(path for path in copied.rglob("*") if path.is_file() and path.name != ".lock")
    damage(copied, 8)
    damage(copied, 12, "cut")
    for words in (("train", "--resume", copied), ("complete", copied, "a"), ("eval", copied)):
        assert refused(cupola(*words), "step-00000012", "start the run anew")
    assert sorted(path for path in copied.rglob("*") if path.is_file() and path.name != ".lock") == before


def test_a_tokenizer_of_another_vocabulary_is_refused(cupola, copied):
    Tokenizer.train(["the furnace melts iron"] * 3, 260).save(copied / "tokenizer.json")
    for words in (("train", "--resume", copied), ("complete", copied, "a"), ("eval", copied)):
        assert refused(cupola(*words), "the tokenizer has 260 tokens, but the model has 280", "Use vocabulary=260")


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        ("model.width=32", "embedding"),
        ("data.held_out=0.5", "data.held_out"),
        ("data.batch=8", "batch"),
        ("seed=1", "seed"),
    ],
)
def test_a_change_that_does_not_fit_what_was_saved(cupola, copied, edit, problem):
    before = (copied / "config.txt").read_text()
    assert refused(cupola("train", "--resume", copied, edit), problem, "")
    assert (copied / "config.txt").read_text() == before
    assert cupola("train", "--resume", copied).code == 0


@pytest.mark.parametrize(
    "words", [("complete", "{}", "a"), ("eval", "{}"), ("train", "--resume", "{}"), ("config", "show", "{}")]
)
def test_a_folder_without_a_run(cupola, tmp_path, words):
    (tmp_path / "none").mkdir()
    ended = cupola(*(word.format(tmp_path / "none") for word in words))
    assert refused(ended, "there is no run here", "Start one with `cupola quickstart`")


def test_an_unknown_experiment(cupola):
    assert refused(cupola("train", "quikstart"), "no recipe, run or file 'quikstart'", "Did you mean 'quickstart'")


FULL = """
import resource, signal, sys
from cupola.command import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
main.main()
"""


@pytest.mark.parametrize("limit_bytes", [1_000, 8_000, pytest.param(30_000, marks=pytest.mark.slow)])
def test_a_disk_without_room_is_a_mistake_to_mend(config, tmp_path, limit_bytes):
    """No file may grow beyond the limit: the run's text, then its data, then its checkpoints have no room."""
    command = [sys.executable, "-c", FULL, str(limit_bytes), "train", str(config()), "--runs", str(tmp_path / "runs")]
    # Bytecode that has no room would be left behind as half a file.
    whole = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=whole)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "could not be written" in ended.stderr
    # Where the checkpoints have no room, tensorstore prints tracebacks of its own beside our error.
    assert limit_bytes == 30_000 or "Traceback" not in ended.stderr

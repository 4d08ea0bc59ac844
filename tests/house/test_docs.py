"""Every command and every snippet in docs/ works, in the order in which the pages are read.

Commands are run as they are written, except that training ones are made small at their end: the
pages tell a person to spend minutes.
"""

import contextlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("train", "configure", "define", "use", "serve", "speech", "access", "kernels")
SOURCE = "data.mixture.parts.0.source=cupola.data.sources:TextFiles(path='docs')"
SMALL = ["model.stack.layers=1", "data.batch=2", "data.length_tokens=32", "evaluation.times=1"]
SHORTER = {
    r"cupola quickstart\b": ["--text=docs", "--minutes=0.02", "model.width=32", *SMALL],
    r"cupola train --resume .*budget": ["budget.minutes=0.04"],
    r"cupola train --resume\b": [],
    r"cupola train\b": ["budget=cupola.train.experiment:Steps(steps=2)", SOURCE, *SMALL],
}
"""What is added to commands that begin like this; the first that matches."""


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks of a page."""
    return re.findall(r"^```(bash|python)\n(.*?)^```", (ROOT / "docs" / f"{page}.md").read_text(), re.S | re.M)


def shortened(command: str) -> list[str]:
    words = shlex.split(command)
    more = next((more for pattern, more in SHORTER.items() if re.match(pattern, command)), [])
    changed = tuple(word.split("=")[0] for word in more if not word.startswith("--"))
    return [word for word in words if not (changed and word.startswith(changed))] + more


@contextlib.contextmanager
def serving(command: list[str], place: Path) -> Iterator[None]:
    """Runs a server while a page's other commands and its snippets run."""
    port = command[command.index("--port") + 1]
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 300
        while True:
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline, f"{shlex.join(command)} is not ready"
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
                if answer.status == 200:
                    break
            time.sleep(0.5)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 0, told


def run(command: list[str], place: Path) -> None:
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    told = 1 if command[1:3] == ["config", "diff"] else 0  # it says with its exit code that there is a difference
    assert done.returncode == told, f"{shlex.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_every_page_is_read():
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} == set(PAGES)
    assert all(blocks(page) for page in PAGES)


@pytest.mark.slow
def test_what_the_pages_say_works(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    programs = {"cupola": str(Path(sys.executable).with_name("cupola"))}
    for page in PAGES:
        with contextlib.ExitStack() as servers:
            work_through(page, tmp_path, programs, servers)


def work_through(page: str, place: Path, programs: dict[str, str], servers: contextlib.ExitStack) -> None:
    """Runs a page's commands, then its snippets as one program, with its servers still running."""
    snippets = [text for language, text in blocks(page) if language == "python"]
    for line in "".join(text for language, text in blocks(page) if language == "bash").splitlines():
        command, _, into = line.partition(" > ")
        words = shortened(command)
        words[0] = programs.get(words[0], words[0])
        if into:
            (place / into).write_text(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        elif command.startswith("cupola serve"):
            servers.enter_context(serving(words, place))
        else:
            run(words, place)
    if snippets:
        run([sys.executable, "-c", "\n".join(snippets)], place)


def test_a_command_that_fails_is_noticed(tmp_path):
    with pytest.raises(AssertionError, match="Did you mean"):
        run([str(Path(sys.executable).with_name("cupola")), "config", "show", "quickstrt"], tmp_path)

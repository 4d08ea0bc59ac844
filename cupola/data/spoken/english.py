"""English text in the words that a reader says: numbers, dates, money, units, short forms and signs.

Not here: what a model reads of it (`symbols.py`). Each rule rewrites what it knows and leaves the
rest; the order matters, since "3/4/2024" is a date before "3/4" is a fraction. Invariant: spoken text
holds no digit, and speaking it once more changes nothing.
"""

import enum
import re
import unicodedata
from collections.abc import Callable
from re import Match

from cupola.config.value import Value
from cupola.data.spoken.numbers import (
    cardinal,
    decade,
    decimal,
    fraction,
    from_roman,
    one_by_one,
    ordinal,
    year,
)
from cupola.data.spoken.words import (
    CURRENCIES,
    ENDS_SENTENCES,
    MAGNITUDES,
    MONTHS,
    NUMBERED,
    RULERS,
    SAID_AS_WORDS,
    SHORT,
    SIGNS,
    SIMPLER,
    STRESSED,
    TITLES,
    UNITS,
)


class DateOrder(enum.Enum):
    """What the first number of 3/4/2024 is."""

    MONTH_FIRST = "month first"
    DAY_FIRST = "day first"


class English(Value):
    """Speaks English text.

    Args:
        dates: what the first number of 3/4/2024 is.

    Example:
        English()("Dr. Lee paid $3.50 on 3/4/2024.")
        # "doctor Lee paid three dollars and fifty cents on March fourth, twenty twenty-four."
    """

    dates: DateOrder = DateOrder.MONTH_FIRST

    def __call__(self, text: str) -> str:
        """Returns the text in words, with the punctuation that guides a voice; "" for text with nothing to say."""
        text = _plain(text)
        for pattern, say in _FIRST:
            text = pattern.sub(say, text)
        text = _SLASHED.sub(lambda m: _slashed(m, self.dates), text)
        for pattern, say in _RULES:
            text = pattern.sub(say, text)
        text = _ACRONYM.sub(_acronym if re.search("[a-z]{2}", text) else _shouted, text)
        for pattern, say in _LAST:
            text = pattern.sub(say, text)
        return text.strip()


_KEPT = "°µ²³"
"""Signs that NFKC would turn into letters and digits."""


def _plain(text: str) -> str:
    """Punctuation in one form, letters without accents, vulgar fractions as 1/2."""
    text = re.sub(r"(\d?)([¼-¾⅐-⅞])", lambda m: f"{m[1]}{' ' if m[1] else ''}{_normal(m[2])}", text)
    text = "".join(char if char in _KEPT else _normal(char) for char in text.translate(SIMPLER))
    stripped = "".join(char for char in unicodedata.normalize("NFD", text) if not "\u0300" <= char <= "\u036f")
    return unicodedata.normalize("NFC", stripped)


def _normal(char: str) -> str:
    return unicodedata.normalize("NFKC", char).translate(SIMPLER)


def _some(names: object) -> str:
    """A pattern for any of these, the longest first."""
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))  # type: ignore[call-overload]


def _address(match: Match[str]) -> str:
    inner = match[0].removeprefix("https://").removeprefix("http://").rstrip("/")
    inner = re.sub(r"^www\.", "W W W dot ", inner)
    spoken = {".": " dot ", "/": " slash ", "@": " at ", "-": " dash ", "_": " underscore ", ":": " colon "}
    return "".join(spoken.get(char, char) for char in inner)


def _money(match: Match[str]) -> str:
    minus, sign, amount, magnitude = match["minus"], match["sign"], match["amount"].replace(",", ""), match["magnitude"]
    one, many, small_one, small_many = CURRENCIES[sign]
    before = "minus " if minus else ""
    if magnitude:
        return f"{before}{decimal(amount)} {MAGNITUDES.get(magnitude.lower(), magnitude)} {many}"
    whole, _, rest = amount.partition(".")
    if len(rest) not in (0, 2):
        return f"{before}{decimal(amount)} {many}"
    cents = int(rest or 0)
    said = [f"{cardinal(whole)} {one if whole == '1' else many}"] if int(whole or 0) or not cents else []
    said += [f"{cardinal(str(cents))} {small_one if cents == 1 else small_many}"] if cents else []
    return before + " and ".join(said)


def _time(match: Match[str]) -> str:
    hour, minute, second, half = match["hour"], match["minute"], match["second"], match["half"]
    said = [cardinal(str(int(hour)))]
    if minute and int(minute):
        said.append(f"oh {cardinal(minute[1])}" if minute[0] == "0" else cardinal(minute))
    elif minute and not half and not second:
        said.append("o'clock" if 1 <= int(hour) <= 12 else "hundred hours")
    if second:
        said.append(f"and {cardinal(str(int(second)))} seconds")
    stop = "." if half and half.endswith(".") and re.match(r"\s*$|\s+[A-Z]", match.string[match.end() :]) else ""
    return " ".join([*said, *([f"{half[0].upper()} M"] if half else [])]) + stop


def _month_day(match: Match[str]) -> str:
    after = f", {year(match['year'])}" if match["year"] else ""
    return f"{_month(match['month'])} {ordinal(match['day'])}{after}"


def _day_month(match: Match[str]) -> str:
    after = f", {year(match['year'])}" if match["year"] else ""
    return f"the {ordinal(match['day'])} of {_month(match['month'])}{after}"


def _month(name: str) -> str:
    return next(month for month in MONTHS if month.lower().startswith(name.lower()[:3]))


def _iso(match: Match[str]) -> str:
    return f"{MONTHS[int(match[2]) - 1]} {ordinal(match[3])}, {year(match[1])}"


def _slashed(match: Match[str], order: DateOrder) -> str:
    numbers = int(match[1]), int(match[2])
    month, day = numbers if order is DateOrder.MONTH_FIRST else numbers[::-1]
    if month > 12:
        month, day = day, month  # only one reading is a date
    if not 1 <= month <= 12 or not 1 <= day <= 31:
        return " slash ".join(cardinal(group) for group in match.groups())
    full = match[3] if len(match[3]) == 4 else f"{20 if int(match[3]) < 70 else 19}{match[3]}"
    return f"{MONTHS[month - 1]} {ordinal(str(day))}, {year(full)}"


def _measure(match: Match[str]) -> str:
    one, many = UNITS[match["unit"]]
    number = match["number"].replace(",", "")
    return f"{'minus ' if match['minus'] else ''}{decimal(number)} {one if number == '1' else many}"


def _mixed(match: Match[str]) -> str:
    whole, above, below, unit = match.groups()
    part = fraction(above, below)
    one, many = UNITS[unit] if unit else ("", "")
    if not whole:
        return f"{part} of a {one}" if unit else part
    # "Two and a half", but "one half" on its own.
    return f"{cardinal(whole)} and {re.sub('^one ', 'a ', part)}{' ' if unit else ''}{many}"


def _roman(match: Match[str]) -> str:
    word, numeral = match.groups()
    number = str(from_roman(numeral))
    if word.lower() in NUMBERED and (word[0].isupper() or len(numeral) > 1):
        return f"{word} {cardinal(number)}"
    # "Charles I know" and "John V. Lindsay" are no kings.
    is_initial = len(numeral) == 1 and match.string[match.end() :].startswith(".")
    return f"{word} the {ordinal(number)}" if word in RULERS and numeral != "I" and not is_initial else match[0]


def _short(match: Match[str]) -> str:
    said = SHORT[match[1].lower()]
    ends = match[1].lower() in ENDS_SENTENCES and re.match(r"\s*$|\s+(?!Ltd|Inc)[A-Z]", match.string[match.end() :])
    return said + ("." if ends else "")


def _acronym(match: Match[str]) -> str:
    word, plural = match[1], match[2]
    if word in SAID_AS_WORDS or word in STRESSED:
        return match[0]
    return " ".join(word) + ("'s" if plural else "")


def _shouted(match: Match[str]) -> str:
    """In a text that is all in capitals, only what has no vowel is spelled."""
    return match[0] if re.search("[AEIOUY]", match[1]) else _acronym(match)


def _number(match: Match[str]) -> str:
    text = match[0].replace(",", "")
    if "." in text:
        return decimal(text)
    return year(text) if len(match[0]) == 4 and 1100 <= int(text) <= 2099 else cardinal(text)


def _digits(match: Match[str]) -> str:
    return ", ".join(one_by_one(group) for group in match.groups() if group)


def _initials(match: Match[str]) -> str:
    """The full stop of U.S. ends a sentence where the text ends, or a word follows that begins one."""
    ends = match["ends"]
    return " ".join(match[1].upper().split(".")).strip() + ("" if ends is None else f".{ends}")


Rule = tuple[re.Pattern[str], Callable[[Match[str]], str] | str]

_MONTH = rf"(?P<month>{_some(MONTHS)}|{_some({month[:3] for month in MONTHS} | {'Sept'})})\.?"
_DAY = r"(?P<day>0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>[12]\d{3})\b"
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.\d+|\d+"
_STARTER = r"(?:The|A|An|I|He|She|It|We|You|They|This|That|These|Those|In|On|At|But|And|So|If|When|Then|There)\b"
_LETTERED = f"{_some(UNITS.keys() - {'s'})}|(?<=\\s)s"
"""Units; seconds only after a space, since 747s are many."""
_MINUS = r"(?<![\w.)-])(?P<minus>-)?"

_FIRST: list[Rule] = [
    (re.compile(r"(?<=[^\s.!?:;,])[ \t]*\n\s*\n\s*"), ". "),
    (re.compile(r"https?://\S*[\w/]|\bwww\.\S*\w|\b[\w.+-]+@[\w-]+\.[\w.-]*\w"), _address),
    (re.compile(r"(?<![\d-])(?:\((\d{3})\) ?|\b(\d{3})-)?\b(\d{3})-(\d{4})\b(?!-)"), _digits),
    (re.compile(r"\b([12]\d{3})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])\b"), _iso),
]
_SLASHED = re.compile(r"(?<![\d/])(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})(?![\d/])")
_RULES: list[Rule] = [
    (re.compile(rf"\b{_MONTH} {_DAY}(?!\d|[:.,]\d)(?:,? {_YEAR})?"), _month_day),
    (re.compile(rf"\b(?:[Tt]he )?{_DAY} (?:of )?{_MONTH}(?![a-z])(?:,? {_YEAR})?"), _day_month),
    (
        re.compile(
            r"\b(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?(?!\d|:\d)"
            r"(?:\s?(?P<half>[ap]\.m\.|[ap]m\b|[AP]\.M\.|[AP]M\b))?"
        ),
        _time,
    ),
    (
        re.compile(
            r"\b(?P<hour>1[0-2]|0?[1-9])(?P<minute>)(?P<second>)\s?(?P<half>[ap]\.m\.|[ap]m\b|[AP]\.M\.|[AP]M\b)"
        ),
        _time,
    ),
    (re.compile(r"(?<=\d):(?=\d)"), " to "),
    (re.compile(rf"(?<=\d)\s?[-\N{{EN DASH}}]\s?(?=[{_some(CURRENCIES)}]?\d)"), " to "),
    (
        re.compile(
            rf"{_MINUS}(?P<sign>[{_some(CURRENCIES)}])\s?(?P<amount>{_NUMBER})"
            r"(?:\s?(?P<magnitude>hundred|thousand|million|billion|trillion|[kKmMbB]|bn|mn|[tT])\b)?"
        ),
        _money,
    ),
    (re.compile(r"(?<![\w'.,])'?(\d+)'?s\b"), lambda m: decade(m[1])),
    (re.compile(r"\b(\d)'\s?(\d{1,2})\"(?!\w)"), lambda m: f"{cardinal(m[1])} foot {cardinal(m[2])}"),
    (re.compile(r"\b24/7\b"), "twenty-four seven"),
    (re.compile(r"\b50/50\b"), "fifty-fifty"),
    (
        re.compile(rf"(?<![\d/.])(?:(\d+) )?(\d+)/([1-9]\d*)(?:ths?|rds?|nds?|\s?({_LETTERED})(?![\w/²³]))?(?![\w/])"),
        _mixed,
    ),
    (re.compile(rf"{_MINUS}(?P<number>{_NUMBER})\s?(?P<unit>{_LETTERED})(?![\w/²³])"), _measure),
    (re.compile(r"\b(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b"), lambda m: ordinal(m[1].replace(",", ""))),
    (re.compile(r"\b[Nn]o\. ?(?=\d)|#(?=\d)"), "number "),
    (re.compile(r"\bpp?\. ?(?=\d)"), "page "),
    (re.compile(r"(?<=\d)\.(?=\d+\.\d)|(?<=\.\d)\.(?=\d)"), " point "),
    (re.compile(rf"(?<![\w.)-])-(?=(?:{_NUMBER}))"), "minus "),
    (re.compile(rf"\b({_some(TITLES)})\.(?!\w)|\b(Mr|Mrs|Ms|Dr)(?=\s+[A-Z])"), lambda m: TITLES[m[1] or m[2]]),
    (re.compile(r"(\d(?: [A-Z]\w+){1,2}) St\.(?=\s*$|\s+[A-Z])"), r"\1 street."),
    (re.compile(r"\bSt\.(?=\s+[A-Z])"), "saint"),
    (re.compile(r"\bSt\."), "street"),
    (re.compile(rf"\b({_some(SHORT)})\.(?!\w)", re.IGNORECASE), _short),
    (re.compile(r"\b([A-Za-z]+) (X{0,3}(?:IX|IV|V?I{0,3}))(?<=[IVX])\b(?!')"), _roman),
    (re.compile(rf"\b((?:[A-Za-z]\.){{2,}})(?P<ends>\s*$|\s+{_STARTER})?"), _initials),
    # A middle name, but not the end of 5 P M.
    (re.compile(r"(?<![A-Z] )\b([A-HJ-Z])\.(?=\s+[A-Z])"), r"\1"),
    (re.compile(r"(?<=[A-Za-z])-(?=\d)|(?<=\d)-(?=[A-Za-z])"), " "),
    (re.compile(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])"), " "),
    (re.compile(_NUMBER), _number),
]
_ACRONYM = re.compile(r"(?<![\w'])([A-Z]{2,})('?s)?(?![\w'])")
_LAST: list[Rule] = [
    (re.compile("²"), " squared"),
    (re.compile("³"), " cubed"),
    (re.compile(r"\s*\N{EN DASH}\s*|\s+--?\s+|--+"), ", "),
    (re.compile(r"(?<=\w)/(?=\w)|/"), " slash "),
    (re.compile(f"[{re.escape(''.join(SIGNS))}]"), lambda m: f" {SIGNS[m[0]]} "),
    (re.compile(r"\s+"), " "),
    (re.compile(r"\s+(?=[,.;:!?)])"), ""),
    (re.compile(r"([,;:])(?:\s*[,;:])+"), r"\1"),
    (re.compile(r",(?=[.!?])|^[\s,;:]+"), ""),
]

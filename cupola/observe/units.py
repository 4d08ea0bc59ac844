"""Quantities as a person reads them: three figures and a unit."""

Number = int | float
"""Whole or not: a checker of types tells them apart."""

POWERS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def short(value: Number) -> str:
    """Returns "9.87k" for 9873.2 and "17" for 17: three figures and a power of a thousand."""
    for power, letter in POWERS:
        if abs(value) >= 0.9995 * power:
            return f"{_three(value / power)}{letter}"
    return f"{value:.0f}" if float(value).is_integer() else _three(value)


def quantity(value: Number, unit: str) -> str:
    """Returns "145 GFLOP/s" for 1.45e11 and "FLOP/s"."""
    figure = short(value)
    return f"{figure[:-1]} {figure[-1]}{unit}" if figure[-1].isalpha() else f"{figure} {unit}"


def bytes_text(count: Number) -> str:
    """Returns "1.50 GB": decimal units, as disks and bandwidths have."""
    return quantity(count, "B")


def seconds_text(seconds: Number) -> str:
    """Returns "42.0 ms", "3.20 s", "50 s", "12:34" or "1:02:03"."""
    if seconds < 0.9995:
        return f"{_three(seconds * 1000)} ms"
    if seconds < 59.95:
        return f"{short(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _three(value: Number) -> str:
    size = abs(value)
    return f"{value:.0f}" if size >= 99.95 else f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"

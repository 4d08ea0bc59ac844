"""`cupola doctor`: what this machine has, what it can run, and how fast it is."""

import math

from rich.table import Table

from cupola.command.options import CONSOLE, begin, say
from cupola.kernels import measured
from cupola.kernels.choose import XLA
from cupola.kernels.native.level import Level
from cupola.kernels.native.library import Found, find
from cupola.layers.repeat import Form, Repeat
from cupola.observe import machine
from cupola.recipes.hardware.machine import fit
from cupola.recipes.quickstart import quickstart


def doctor() -> None:
    """Shows what this machine has, can run, and how fast it is."""
    begin()
    here = machine.measure()
    table = Table(title="this machine", title_justify="left", show_header=False)
    for what, value in here.describe():
        table.add_row(what, value)
    CONSOLE.print(table)
    made = fit(quickstart(), here)
    layers = {Form.SCAN: "scanned", Form.UNROLL: "unrolled"}[
        next(held.form for _, held in made.model.walk() if isinstance(held, Repeat))
    ]
    say(f"models train here with {made.precision.compute.name} products, layers {layers}")
    for line in about_kernels(find()):
        say(line)


def about_kernels(found: Found) -> list[str]:
    """Returns what there is of native kernels, what it costs where there are none, and what is not tested here."""
    if not found.libraries:
        return [f"native kernels: none: {found.reason}", *_costs()]
    used = ", ".join(level.value for level in found.libraries)
    highest = found.highest or max(found.libraries, key=lambda level: level.number)
    folder = next(iter(found.libraries.values())).parent
    lines = [f"native kernels: this processor has {highest.value}; found are {used}, in {folder}"]
    if untested := [level.value for level in Level if level.number > highest.number]:
        lines.append(f"native kernels: compiled, and untested on this processor: {', '.join(untested)}")
    return lines


def _costs() -> list[str]:
    """Returns how much longer operations take by XLA than by the fastest native kernel, where that was measured."""
    ratios: dict[str, list[float]] = {}
    for row in measured.committed():
        native = [seconds for name, seconds in row.seconds.items() if name.startswith("cpu")]
        if native and XLA in row.seconds:
            ratios.setdefault(row.operation, []).append(max(1.0, row.seconds[XLA] / min(native)))
    means = {name: math.exp(sum(map(math.log, each)) / len(each)) for name, each in ratios.items()}
    slower = [f"{name} {mean:.1f}" for name, mean in sorted(means.items(), key=lambda pair: -pair[1]) if mean > 1]
    return [f"what that costs, times longer where it was measured: {', '.join(slower)}"] if slower else []

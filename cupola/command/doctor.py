"""`cupola doctor`: what this machine has, what it can run, and how fast it is."""

from rich.table import Table

from cupola.command.options import CONSOLE, begin, say
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

"""`cupola doctor`: what this machine has, what it can run, and how fast it is."""

from rich.table import Table

from cupola.command.options import CONSOLE, begin
from cupola.observe import machine
from cupola.recipes.hardware.machine import fit
from cupola.recipes.quickstart import quickstart


def doctor() -> None:
    """Prints what this machine has, can run, and its measured matmul rate and bandwidth."""
    begin()
    here = machine.measure()
    table = Table(title="this machine", title_justify="left", show_header=False)
    for what, value in here.describe():
        table.add_row(what, value)
    CONSOLE.print(table)
    made = fit(quickstart(), here)
    CONSOLE.print(
        f"models train here with {made.precision.compute.name} products, layers {made.model.stack.form.value}ed",
        highlight=False,
    )

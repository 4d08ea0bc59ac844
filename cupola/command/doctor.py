"""`cupola doctor`: what this machine has, what it can run, and how fast it is."""

from rich.console import Console
from rich.table import Table

from cupola.command.options import begin
from cupola.observe import machine
from cupola.recipes.hardware.machine import fit
from cupola.recipes.quickstart import quickstart


def doctor() -> None:
    """Prints what this machine has, can run, and its measured matmul rate and bandwidth."""
    begin()
    here = machine.measure()
    console = Console()
    table = Table(title="this machine", title_justify="left", show_header=False)
    for what, value in here.describe():
        table.add_row(what, value)
    console.print(table)
    made = fit(quickstart(), here)
    console.print(
        f"models train here with {made.precision.compute.name} products, layers {made.model.stack.form.value}ed",
        highlight=False,
    )

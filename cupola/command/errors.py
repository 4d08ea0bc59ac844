"""How a mistake of the user is told: its kind, where, what is so, what to type."""

from rich.console import Console


def show(error: Exception) -> None:
    """Prints an error on standard error."""
    console = Console(stderr=True)
    console.print(f"[bold red]error[/] [dim]{type(error).__name__}[/]", highlight=False)
    console.print(str(error), highlight=False, markup=False, emoji=False, soft_wrap=True)

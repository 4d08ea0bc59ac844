"""Logging for the command line: short lines by rich, libraries quiet.

Not here: metrics (`sinks.py`) and the live display (`progress.py`). Nothing calls this but the
command line: as a library, Cupola leaves logging to its host.
"""

import logging

from rich.console import Console
from rich.logging import RichHandler

QUIET = ("absl", "jax", "orbax", "tensorstore", "grain", "matplotlib", "urllib3", "asyncio")
"""Libraries whose records below WARNING say nothing to a user of Cupola."""

CONSOLE = Console()
"""Standard output, for log and live display alike: two consoles would write over each other."""


def set_up(level: int = logging.INFO, *, console: Console | None = None) -> None:
    """Sends records of `level` and above to the console; calling again replaces what was set up.

    Args:
        level: of Cupola's own records; libraries speak from WARNING on, or from `level` if that is higher.
        console: where to; None takes CONSOLE. A command whose standard output is data passes Console(stderr=True).
    """
    handler = RichHandler(console=console or CONSOLE, show_path=False, show_time=False, rich_tracebacks=True)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("cupola").setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)

"""An engine whose adapters are read from the disk when a client asks for it.

Not here: the routes (`models.py`), the files (`interop/peft.py`), the products (`serve/adapters.py`).
Invariant: nothing is read but what lies below the one folder that the operator named.
"""

import os
from pathlib import Path

from cupola.config.suggest import did_you_mean
from cupola.interop.peft import read_adapter
from cupola.serve.engine import Engine
from cupola.serve.errors import InvalidRequest
from cupola.serve.generator import Stats
from cupola.serve.request import Receive, Request


class WithAdapters:
    """An engine for HTTP: a `Generator` that loads adapters by the names of folders.

    Args:
        engine: with places for adapters; whoever made it closes it.
        folder: below which the adapters lie; None: clients may load none.
    """

    def __init__(self, engine: Engine, folder: Path | None):
        self._engine, self._folder = engine, None if folder is None else folder.resolve()

    def submit(self, request: Request, receive: Receive) -> None:
        """As `Engine.submit`."""
        self._engine.submit(request, receive)

    def abort(self, request_id: str) -> None:
        """As `Engine.abort`."""
        self._engine.abort(request_id)

    def stats(self) -> Stats:
        """As `Engine.stats`."""
        return self._engine.stats()

    @property
    def failure(self) -> BaseException | None:
        """As `Engine.failure`."""
        return self._engine.failure

    def load_adapter(self, name: str, folder: str) -> None:
        """Reads an adapter of PEFT; from then on requests may name it.

        Args:
            folder: below the operator's: its name there, or its whole path.

        Raises:
            InvalidRequest: it lies elsewhere, the operator named no folder, or the engine has no place for it.
            WeightsError: it cannot be read, does more than low-rank factors do, or is of another model.
        """
        self._engine.load_adapter(name, read_adapter(self._below(folder), self._engine.model))

    def unload_adapter(self, name: str) -> None:
        """Forgets an adapter; requests that use it end with an error."""
        self._engine.unload_adapter(name)

    def _below(self, asked: str) -> Path:
        if self._folder is None:
            raise InvalidRequest(
                "adapters are read only from a folder that the operator named, and none was named",
                where="lora_path",
                remedy="Start the server with --adapter-folder FOLDER.",
            )
        shown = asked[:200]
        try:
            # Links are followed before anything is compared: one may point out of the folder.
            path = (self._folder / asked).resolve()
        except (OSError, ValueError, RuntimeError):
            raise InvalidRequest(f"{shown!r} is no path", where="lora_path", remedy="Send a folder's name.") from None
        if not path.is_relative_to(self._folder):
            raise InvalidRequest(
                f"{shown!r} does not lie below the folder of adapters",
                where="lora_path",
                remedy="Send the name of a folder in it, such as poet.",
            )
        if not os.path.isdir(path):
            known = [held.name for held in self._folder.iterdir()] if self._folder.is_dir() else []
            raise InvalidRequest(
                f"there is no folder {shown!r} below that of adapters",
                where="lora_path",
                remedy=did_you_mean(shown, known),
            )
        return path

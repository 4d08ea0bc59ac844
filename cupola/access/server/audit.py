"""The audit log: one line of JSON for every write, and for a sample of the decisions.

Not here: what is worth a line (`http/`, `grpc/`), rotation, which is the system's: a file that was moved away is
opened anew.
Invariant: nobody who is answered waits for the disk. Writes are never left out while the process lives; decisions
are, and are counted, where more come than the disk takes.
"""

import collections
import json
import logging
import os
import random
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from cupola.access.relation import format_time

logger = logging.getLogger(__name__)

BACKLOG = 10_000
"""Lines that may wait for the disk before decisions are left out."""


class Audit:
    """Writes lines from a thread of its own.

    Args:
        path: of the file, which is appended to; None: nothing is written.
        sample: share of the decisions that are written, 0 to 1.
    """

    def __init__(self, path: str | Path | None = None, *, sample: float | int = 0.0):
        self.path, self.sample = None if path is None else Path(path), sample
        self.left_out = 0
        self._lines: collections.deque[str] = collections.deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        if self.path is not None:
            self.path.touch()
            self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
            self._thread.start()

    def write(self, kind: str, **facts: Any) -> None:
        """Notes something; `kind` says what, such as "write" or "decision"."""
        if self.path is not None:
            self._put(kind, facts)

    def samples(self) -> bool:
        """Whether a decision that was made just now falls into the sample, and is to be written."""
        if self.path is None or not self.sample or random.random() >= self.sample:
            return False
        if len(self._lines) >= BACKLOG:
            self.left_out += 1
            return False
        return True

    def close(self) -> None:
        """Writes what waits, and ends."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _put(self, kind: str, facts: dict[str, Any]) -> None:
        line = json.dumps({"time": format_time(time.time()), "kind": kind, **facts}, default=str)
        with self._changed:
            self._lines.append(line)
            self._changed.notify()

    def _run(self) -> None:
        file: TextIO | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._closing)
                lines, ending = list(self._lines), self._closing
            try:
                file = self._opened(file)
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
            except OSError as error:
                logger.error("the audit log %s cannot be written: %s", self.path, error)
                if not ending:
                    time.sleep(1.0)
                    continue
            with self._changed:
                for _ in lines:
                    self._lines.popleft()
                if ending and not self._lines:
                    break
        if file is not None:
            file.close()

    def _opened(self, file: TextIO | None) -> TextIO:
        """The file under the path, which may have been moved away since."""
        path = self.path or Path(os.devnull)
        if file is not None:
            try:
                there, ours = path.stat(), os.fstat(file.fileno())
                if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                    return file
            except FileNotFoundError:
                pass
            file.close()
        return path.open("a", encoding="utf-8")

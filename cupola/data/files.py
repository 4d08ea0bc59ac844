"""Files and folders that appear whole or not at all.

Invariant: whatever stops the writing, what stood there before still stands.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Gives a path to write a file or folder to; when the block ends well, it becomes `target`.

    A file replaces a file. A folder replaces nothing but an empty folder.

    Raises:
        OSError: it could not be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=target.parent, ignore_cleanup_errors=True) as beside:
        unfinished = Path(beside) / target.name
        yield unfinished
        for path in [unfinished, *unfinished.rglob("*")]:
            # Until it is on the disk, a rename could outlive its contents.
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        unfinished.replace(target)

"""Where checkpoints stand on disk: names, temporary folders, durability, and the processes that share them.

Invariant: a folder gets its name `step-00001234` by one rename, when everything in it has reached
the disk; a temporary folder names the process that owns it, and is removed once that process is gone.
"""

import contextlib
import hashlib
import os
import re
import shutil
import socket
import time
import zlib
from pathlib import Path

import jax
import numpy as np
import psutil
from jax.experimental import multihost_utils

from cupola.checkpoint import manifest
from cupola.checkpoint.manifest import File

STEP = re.compile(r"step-(\d{8,})")
TEMPORARY = re.compile(r"\.(?:writing|deleting)-step-\d{8,}-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<born>\d+)")
ABANDONED_SECONDS = 24 * 3600
"""A temporary folder of another machine, whose processes cannot be seen from here, is left this long."""


def step_folder(folder: Path, step: int) -> Path:
    """Returns where the checkpoint of `step` stands."""
    return folder / f"step-{step:08d}"


def steps(folder: Path) -> list[int]:
    """Returns the steps of the complete checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    named = [(STEP.fullmatch(inside.name), inside) for inside in folder.iterdir()]
    return sorted(int(match[1]) for match, inside in named if match and manifest.exists(inside))


def owner() -> str:
    """Returns "host-pid-born" of process 0, which names temporary folders; the same on every process."""
    born = int(psutil.Process().create_time())
    numbers = np.array([_host(), os.getpid(), born], np.uint32)
    if jax.process_count() > 1:
        numbers = multihost_utils.broadcast_one_to_all(numbers)
    host, pid, born = (int(n) for n in numbers)
    return f"{host:08x}-{pid}-{born}"


def remove_leftovers(folder: Path) -> list[Path]:
    """Removes the temporary folders of processes that are gone, and returns them."""
    if not folder.is_dir():
        return []
    found = [(TEMPORARY.fullmatch(inside.name), inside) for inside in folder.iterdir()]
    gone = [inside for match, inside in found if match and not _is_alive(match, inside)]
    for inside in gone:
        shutil.rmtree(inside, ignore_errors=True)
    return gone


def everyone(good: bool) -> bool:
    """Returns whether `good` holds on every process; all of them must call it."""
    if jax.process_count() == 1:
        return good
    return bool(np.all(multihost_utils.process_allgather(np.asarray(good))))


def put(path: Path, text: str) -> None:
    """Writes a small file so that it survives a loss of power."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def measure(path: Path, root: Path) -> File:
    """Returns the size and checksum of a file, by its path under `root`."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(path=path.relative_to(root).as_posix(), bytes=path.stat().st_size, sha256=digest)


def settle(folder: Path) -> None:
    """Waits until every file and folder in `folder` has reached the disk."""
    for inside in [*folder.rglob("*"), folder]:
        sync(inside)


def sync(path: Path) -> None:
    """Waits until a file's content or a folder's list of names has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: Path, folder: Path, step: int, owner: str) -> None:
    """Gives a complete checkpoint its name; one of the same step is replaced."""
    aside = _set_aside(folder, step, owner)
    temporary.rename(step_folder(folder, step))
    sync(folder)
    shutil.rmtree(aside, ignore_errors=True)


def remove(folder: Path, step: int, owner: str) -> None:
    """Removes the checkpoint of `step`; whenever it is interrupted, no half of it can be picked."""
    shutil.rmtree(_set_aside(folder, step, owner), ignore_errors=True)


def _set_aside(folder: Path, step: int, owner: str) -> Path:
    """Takes its name from the folder of `step`, if there is one; what it is called then is never picked."""
    aside = folder / f".deleting-{step_folder(folder, step).name}-{owner}"
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        step_folder(folder, step).rename(aside)
    return aside


def _host() -> int:
    return zlib.crc32(socket.gethostname().encode())


def _is_alive(match: re.Match[str], inside: Path) -> bool:
    if int(match["host"], 16) != _host():
        with contextlib.suppress(FileNotFoundError):
            return time.time() - inside.stat().st_mtime < ABANDONED_SECONDS
        return False
    try:
        # A process number is used again after a while; the second of its birth is not.
        return abs(psutil.Process(int(match["pid"])).create_time() - int(match["born"])) <= 2
    except psutil.NoSuchProcess:
        return False

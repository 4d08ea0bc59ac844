"""What the tests of the permission graph share."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cupola.access.testing import graph, make_graph

__all__ = ["graph", "make_graph"]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The conformance data, beside the checkout or where CUPOLA_SHARED says."""
    beside = Path(__file__).parents[3] / "shared"
    found = Path(os.environ.get("CUPOLA_SHARED", beside)) / "authz_conformance"
    if not found.is_dir():
        pytest.skip(f"there is no conformance data at {found}; set CUPOLA_SHARED")
    return found.parent


@pytest.fixture(scope="session")
def postgres_address() -> Iterator[str]:
    """A database of a PostgreSQL server that is ours alone; tests take a tenant each."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found or importlib.util.find_spec("psycopg") is None:
        pytest.skip("needs Debian's package postgresql" if not found else "needs psycopg")
    # The server refuses to run as root.
    account = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    become = ["runuser", "-u", account, "--"] if os.getuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="access-"))  # A socket's path must be short.
    shutil.chown(folder, account)
    control = [*become, found[-1].parent / "pg_ctl", "-D", folder / "data", "-w"]

    def run(*command) -> None:
        told = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if told.returncode:
            pytest.fail(f"{command}: {told.stderr}")

    try:
        run(*become, found[-1], "-D", folder / "data", "-U", account, "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        run(*control, "-l", folder / "log", "-o", options, "start")
        try:
            yield f"postgresql://{account}@/postgres?host={folder}"
        finally:
            run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)

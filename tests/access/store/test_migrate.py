"""Databases of other versions, and many that open one at once."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from cupola.access.errors import StoreUnavailable
from cupola.access.store.migrate import NEWEST
from cupola.access.store.open import open_store


def test_a_newer_database_is_refused_by_name(tmp_path):
    path = str(tmp_path / "access.db")
    open_store(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE access_format SET version = {NEWEST + 1}")
    connection.commit()
    with pytest.raises(StoreUnavailable, match=rf"access.db: .* newer version .* format is {NEWEST + 1}") as caught:
        open_store(path)
    assert "pip install --upgrade" in caught.value.remedy
    assert connection.execute("SELECT version FROM access_format").fetchall() == [(NEWEST + 1,)]
    connection.close()


def test_threads_open_a_new_tenant_at_once(kept):
    tenant = str(id(object()))
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(lambda _: open_store(kept, tenant=tenant), range(6)))
    assert len({store.id for store in stores}) == 1
    for store in stores:
        store.close()


def test_processes_migrate_at_once(tmp_path):
    path = str(tmp_path / "access.db")
    script = "import sys; from cupola.access.store.open import open_store; print(open_store(sys.argv[1]).id)"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    told = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0] * 4, told
    assert len({out for out, _ in told}) == 1


def test_stands_beside_the_applications_tables(tmp_path):
    path = str(tmp_path / "shop.db")
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE tenant (name TEXT)")
    connection.execute("PRAGMA user_version = 7")
    connection.commit()
    open_store(path).close()
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert [name for name in tables if not name.startswith("access_")] == ["tenant"]
    assert connection.execute("PRAGMA user_version").fetchall() == [(7,)]
    connection.close()

import json
import threading

import pytest

from cupola.access.server import audit as audit_module
from cupola.access.server.audit import Audit


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_write_is_a_line_of_json(path):
    audit = Audit(path)
    for n in range(100):
        audit.write("write", by="ada", changes=[f"touch {n}"])
    audit.close()
    told = lines(path)
    assert [one["changes"] for one in told] == [[f"touch {n}"] for n in range(100)]
    assert told[0]["kind"] == "write"
    assert told[0]["time"].endswith("Z")


@pytest.mark.parametrize(("sample", "least", "most"), [(0.0, 0, 0), (1.0, 500, 500), (0.5, 150, 350)])
def test_decisions_are_sampled(path, sample, least, most):
    audit = Audit(path, sample=sample)
    assert least <= sum(audit.samples() for _ in range(500)) <= most
    audit.close()


def test_decisions_are_left_out_and_counted_where_the_disk_is_slow(path, monkeypatch):
    monkeypatch.setattr(audit_module, "BACKLOG", 0)
    audit = Audit(path, sample=1.0)
    assert not audit.samples()
    assert audit.left_out == 1
    audit.close()


def test_a_file_that_was_moved_away_is_opened_anew(path):
    audit = Audit(path)
    audit.write("write", n=1)
    while not path.stat().st_size:
        threading.Event().wait(0.01)
    path.rename(path.with_suffix(".old"))
    audit.write("write", n=2)
    audit.close()
    assert [one["n"] for one in lines(path)] == [2]
    assert [one["n"] for one in lines(path.with_suffix(".old"))] == [1]


def test_without_a_file_nothing_is_done():
    audit = Audit(None, sample=1.0)
    audit.write("write", n=1)
    assert not audit.samples()
    audit.close()


def test_a_file_that_cannot_be_is_refused_at_once(tmp_path):
    with pytest.raises(OSError, match="absent"):
        Audit(tmp_path / "absent" / "audit.jsonl")

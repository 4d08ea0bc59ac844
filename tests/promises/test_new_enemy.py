"""Nobody reads new content by an old list, whatever is late, set wrongly or out of order."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "new_enemy.py"


@pytest.fixture
def play():
    """Plays rounds in a process of its own, whose types are not checked at each call; returns what came of them."""

    def run(rounds: int, seed: int, fault: str = "", address: str = ":memory:") -> dict:
        command = [sys.executable, str(SCRIPT), str(rounds), str(seed), fault, address]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert sum(told["rounds"].values()) == rounds
        assert min(told["rounds"].values()) > rounds // 3
        return told

    return run


@pytest.mark.parametrize(
    ("rounds", "seed"),
    [
        (20_000, 1),
        pytest.param(100_000, 5, marks=pytest.mark.slow),
        pytest.param(1_000_000, 7, marks=[pytest.mark.slow, pytest.mark.long]),
    ],
    ids=["quick", "hundred thousand", "million"],
)
def test_tokens_keep_the_new_enemy_out(play, rounds, seed):
    told = play(rounds, seed)
    assert told["violations"] == {"A": 0, "B": 0}
    assert told["orders"] > min(rounds, 100_000) // 2, "rounds are not the same over and over"
    assert told["asked"] > 3 * rounds


@pytest.mark.parametrize("rounds", [200, pytest.param(5000, marks=pytest.mark.slow)])
def test_over_a_file_with_a_connection_for_each_reader(play, rounds, tmp_path):
    assert play(rounds, 2, address=str(tmp_path / "access.db"))["violations"] == {"A": 0, "B": 0}


@pytest.mark.parametrize("fault", ["ignored", "deaf"])
def test_he_gets_in_where_tokens_are_ignored_or_caches_are_deaf(play, fault):
    violations = play(4000, 3, fault)["violations"]
    assert violations["A"] > 40
    assert violations["B"] > 100

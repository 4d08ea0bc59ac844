"""What a fresh clone is installed with: the Makefile, the pinned versions, the peers of a bench."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PINNED = r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; python_version (<|>=) \"3\.\d+\")?"


def run(*command):
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def pins():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_constraints_are_names_and_versions_only():
    assert [line for line in pins() if not re.fullmatch(PINNED, line)] == []
    assert not re.fullmatch(PINNED, "jax @ https://example.org/jax.whl")


def test_every_dependency_is_pinned():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = [name for extra in project["optional-dependencies"].values() for name in extra]
    needed = {re.split(r"[\s<>=!\[]", name)[0].lower() for name in [*project["dependencies"], *extras]}
    assert needed - {line.split("==")[0] for line in pins()} == set()


@pytest.fixture
def old_python(tmp_path):
    python = tmp_path / "python3.9"
    python.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.1" || exit 1\n')
    python.chmod(0o755)
    return python


def test_an_old_python_is_refused_with_what_to_type(old_python, tmp_path):
    done = run("make", "install", f"PYTHON={old_python}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert f"Cupola needs Python 3.11 or newer; '{old_python}' is Python 3.9.1" in done.stdout
    assert "make PYTHON=python3.12 install" in done.stdout
    assert not (tmp_path / "venv").exists()


def test_help_names_every_target():
    made = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    listed = run("make").stdout
    assert {"install", "quickstart", "test", "lint", "bench"} <= set(made)
    assert [target for target in made if f"make {target} " not in listed] == []


@pytest.mark.parametrize("name", [[], ["nothing"]])
def test_an_unknown_bench_is_refused_with_those_that_are(name):
    done = run("bench/setup", *name)
    assert done.returncode == 2
    assert "train_cpu" in done.stderr

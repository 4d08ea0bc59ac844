"""The house keeps its rules, and each rule finds a breach that is planted."""

from pathlib import Path

import pytest
from rules import FLOORS, RULES, files, module_of

REPOSITORY = Path(__file__).parents[2]

SOUND = {
    "README.md": "# A house\n\n    make quickstart\n",
    "cupola/__init__.py": '"""A house."""\n',
    "cupola/config/__init__.py": '"""Values."""\n',
    "cupola/config/value.py": '"""A value."""\nimport os\n\nHOME = os.sep\n',
    "cupola/config/text.py": '"""A text."""\nfrom cupola.config import value\nfrom .value import HOME\n',
    "cupola/core/__init__.py": '"""Ground."""\n',
    "cupola/core/mesh.py": '"""A mesh."""\nimport jax.numpy as jnp\nfrom cupola.config.value import HOME\nSIN = jnp.sin\n',
    "cupola/kernels/__init__.py": '"""Kernels."""\n',
    "cupola/kernels/dot.py": '"""A kernel."""\ndef f():\n' + "    x = 1\n" * 110,
    "cupola/recipes/__init__.py": '"""Recipes."""\nimport cupola.access.graph\n',
    "cupola/access/__init__.py": '"""Permissions."""\n',
    "cupola/access/graph.py": '"""A graph."""\n',
    "tests/config/test_text.py": "def test_text():\n    assert True\n",
    "tests/config/test_text_twice.py": "",
    "tests/promises/test_same_loss.py": "",
}

CORE, CONFIG = "cupola/core/plant.py", "cupola/config/plant.py"
DOC = '"""A plant."""\n'
PLANTS = [
    ("imports_go_down", CONFIG, DOC + "from cupola.core import mesh\n"),
    ("imports_go_down", CORE, DOC + "import cupola.kernels.dot\n"),
    ("imports_go_down", "cupola/observe/plant.py", DOC + "from cupola.core.mesh import SIN\n"),
    ("imports_go_down", "cupola/config/plant.py", DOC + "from ..core import mesh\n"),
    ("imports_go_down", CORE, DOC + "def late():\n    from cupola.recipes import x\n"),
    ("imports_go_down", CORE, DOC + "from cupola.access.graph import x\n"),
    ("imports_go_down", "cupola/__init__.py", DOC + "from cupola.config.value import HOME\n"),
    ("imports_go_down", "cupola/attic/plant.py", DOC + "from cupola.config.value import HOME\n"),
    ("every_room_is_known", "cupola/attic/__init__.py", DOC),
    ("every_room_is_known", "cupola/core/deep/plant.py", DOC),
    ("no_cycle", "cupola/config/value.py", DOC + "from cupola.config.text import value\n"),
    ("no_cycle", "cupola/config/value.py", DOC + "from . import text\n"),
    ("no_cycle", CORE, DOC + "import cupola.core.plant\n"),
    ("imports_stand_at_the_top", CORE, DOC + "def f():\n    import json\n"),
    (
        "imports_stand_at_the_top",
        CORE,
        DOC + "class A:\n    async def f(self):\n        if 1:\n            from os import sep\n",
    ),
    ("imports_are_the_same_for_all", CORE, DOC + "from typing import TYPE_CHECKING\n"),
    ("imports_are_the_same_for_all", CORE, DOC + "import typing\nif typing.TYPE_CHECKING:\n    import json\n"),
    ("imports_are_the_same_for_all", CORE, DOC + "from __future__ import annotations\n"),
    ("no_private_api", CORE, DOC + "import jax._src.core\n"),
    ("no_private_api", CORE, DOC + "from jax._src import core\n"),
    ("no_private_api", CORE, DOC + "from numpy import _core\n"),
    ("no_private_api", CORE, DOC + "import jax.numpy as jnp\nx = jnp.linalg._qr(1)\n"),
    ("no_private_api", CORE, DOC + "import jax\nx = jax._src\n"),
    ("no_bare_assert", CORE, DOC + "assert 1\n"),
    ("no_environment_variable", CORE, DOC + "import os\nx = os.environ['X']\n"),
    ("no_environment_variable", CORE, DOC + "import os\nx = os.getenv('X')\n"),
    ("no_environment_variable", CORE, DOC + "from os import environ\n"),
    ("files_are_short", CORE, DOC + "x = 1\n" * 500),
    ("files_are_short", "cupola/kernels/plant.cc", "// a line\n" * 501),
    ("functions_are_short", CORE, DOC + "def f():\n" + "    x = 1\n" * 60),
    ("functions_are_short", "cupola/kernels/plant.py", DOC + "def f():\n" + "    x = 1\n" * 120),
    ("functions_are_short", "tests/core/plant.py", "def f():\n" + "    x = 1\n" * 60),
    *(
        ("names_say_what_is_inside", f"cupola/core/{n}.py", DOC)
        for n in ("utils", "common", "helpers", "misc", "manager")
    ),
    ("names_say_what_is_inside", "cupola/core/mesh_utils.py", DOC),
    ("names_say_what_is_inside", "tests/common/test_mesh.py", DOC),
    ("modules_open_with_a_docstring", CORE, "x = 1\n"),
    ("tests_mirror_the_package", "tests/config/test_plant.py", ""),
    ("tests_mirror_the_package", "tests/test_plant.py", ""),
    ("tests_mirror_the_package", "tests/config/__init__.py", ""),
    ("the_readme_is_short_and_starts_with_a_command", "README.md", "\n" * 11 + "    make test\n" + "\n" * 139),
    ("the_readme_is_short_and_starts_with_a_command", "README.md", "# A house\n" + "\n" * 11 + "    make test\n"),
    ("the_readme_is_short_and_starts_with_a_command", "README.md", "# A house\nmakes one happy\n"),
    ("the_readme_is_short_and_starts_with_a_command", "README.md", ""),
    ("nothing_speaks_of_how_it_was_made", "docs/plant.md", "As is" + "sue 7 asks."),
    ("nothing_speaks_of_how_it_was_made", "docs/plant.md", "cd /wo" + "rk/main"),
    ("nothing_speaks_of_how_it_was_made", CORE, DOC + "# TO" + "DO\n"),
    ("nothing_speaks_of_how_it_was_made", "constraints.txt", "--index-url https://py" + "pi.org/simple"),
]


@pytest.mark.parametrize("name", RULES)
def test_the_house_keeps(name):
    assert RULES[name](REPOSITORY) == []


def test_every_room_is_built_on_a_floor():
    assert {path.name for path in (REPOSITORY / "cupola").iterdir() if (path / "__init__.py").exists()} <= set(FLOORS)


def test_the_rules_read_the_real_files():
    read = {path.relative_to(REPOSITORY).as_posix() for path in files(REPOSITORY)}
    assert {"cupola/config/value.py", "tests/house/rules.py", "pyproject.toml"} <= read
    assert not any(name.startswith((".venv/", ".git/")) for name in read)


@pytest.fixture
def house(tmp_path):
    def build(**planted):
        for name, text in {**SOUND, **planted}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return build


@pytest.mark.parametrize("name", RULES)
def test_a_sound_house_passes(house, name):
    assert RULES[name](house()) == []


@pytest.mark.parametrize(("name", "path", "text"), PLANTS, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(PLANTS)])
def test_a_planted_breach_is_found(house, name, path, text):
    breaches = RULES[name](house(**{path: text}))
    assert breaches
    assert any(place in breach for breach in breaches for place in (path, str(Path(path).parent), module_of(path)))


def test_every_rule_has_a_plant():
    assert {name for name, *_ in PLANTS} == set(RULES)

import enum
import sys

import jax
import pytest

from cupola.config import reference
from cupola.config.errors import ConfigError
from cupola.config.value import Value


class Gate(enum.Enum):
    SILU = "silu"
    GELU = "gelu"


class Outer:
    class Inner(Value):
        size: int = 1


def twice(x):
    return 2 * x


also_twice = twice
hidden = lambda x: x  # noqa: E731
HERE = __name__


@pytest.mark.parametrize("thing", [Gate, Gate.SILU, Outer.Inner, twice, len, jax.nn.silu, ValueError])
def test_a_name_finds_the_same_thing(thing):
    assert reference.find(reference.name_of(thing)) is thing


def test_names_read_as_one_would_write_them():
    assert reference.name_of(Gate.SILU) == f"{HERE}:Gate.SILU"
    assert reference.name_of(Outer.Inner) == f"{HERE}:Outer.Inner"
    assert reference.name_of(also_twice) == f"{HERE}:twice"
    assert reference.name_of(len) == "builtins:len"


def test_a_public_module_is_preferred_to_a_private_one():
    assert jax.nn.silu.__module__.startswith("jax._src")
    assert reference.name_of(jax.nn.silu) == "jax.nn:silu"


@pytest.mark.parametrize(
    "thing", [hidden, lambda x: x, Outer().__init__, test_names_read_as_one_would_write_them.__get__(1)]
)
def test_what_no_name_finds_again_is_refused_with_the_remedy(thing):
    with pytest.raises(ConfigError, match="cannot be found again(?s:.*)Define it at module level"):
        reference.name_of(thing)


def test_a_local_class_is_refused():
    class Local:
        pass

    with pytest.raises(ConfigError, match="Define it at module level"):
        reference.name_of(Local)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{HERE}:Gait", "Did you mean 'Gate'"),
        (f"{HERE}:Gate.SILO", r"Did you mean 'Gate\.SILU'"),
        (f"{HERE}:HERE", "has no 'HERE'"),
        (f"{HERE}:sys.exit", r"has no 'sys\.exit'"),
        (
            "cupola.config.valu:Value",
            r"there is no module 'cupola\.config\.valu'\nDid you mean 'cupola\.config\.value'",
        ),
    ],
)
def test_what_is_not_there_is_refused_with_the_nearest(name, message):
    with pytest.raises(ConfigError, match=message):
        reference.find(name)


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text("print('ran')\ndef greet(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "stranger"
    sys.modules.pop("stranger", None)


def test_finding_runs_no_code_of_strangers(stranger, capsys):
    with pytest.raises(ConfigError, match=r"'stranger' is not imported.*\n.*allow=\('stranger',\)"):
        reference.find("stranger:greet")
    with pytest.raises(ConfigError, match="is not imported"):
        reference.find("stranger:greet", allow=("strange",))
    assert capsys.readouterr().out == ""
    assert stranger not in sys.modules


def test_what_is_allowed_is_imported(stranger, capsys):
    assert reference.find("stranger:greet", allow=(stranger,)).__name__ == "greet"
    assert capsys.readouterr().out == "ran\n"


def test_an_import_that_fails_inside_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_inside.py").write_text("import nothing_of_that_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        reference.find("broken_inside:x", allow=("broken_inside",))

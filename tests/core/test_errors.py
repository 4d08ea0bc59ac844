import pytest

from cupola.core import errors


@pytest.mark.parametrize("name", errors.__all__)
def test_every_kind_is_one_that_the_command_line_prints(name):
    kind = getattr(errors, name)
    error = kind("it is so", where="here", remedy="Type this.")
    assert isinstance(error, errors.CupolaError)
    assert str(error) == "here: it is so\nType this."
    assert type(error.under("there")) is kind

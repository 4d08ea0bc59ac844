import pytest
import typer
from typer.testing import CliRunner

from cupola.command import extra
from cupola.core.errors import ConfigError


def test_a_missing_package_is_answered_with_what_to_type():
    app = typer.Typer()
    app.command("other")(lambda: None)
    extra.explain(app, "serve", ModuleNotFoundError("no", name="starlette"), commands=("serve",))
    ended = CliRunner().invoke(app, ["serve", "model", "--port", "1"])
    assert isinstance(ended.exception, ConfigError)
    assert "starlette" in str(ended.exception)
    assert "-m pip install 'cupola[serve]'" in str(ended.exception)


def test_a_module_of_our_own_that_is_missing_is_no_extra():
    with pytest.raises(ModuleNotFoundError):
        extra.explain(typer.Typer(), "serve", ModuleNotFoundError("no", name="cupola.serve.gone"), commands=("serve",))

import pytest

from cupola.core.errors import ConfigError
from cupola.serve.program import ProgramError, gen, select, separate_reasoning


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: gen("x", limit_tokens=0), "limit_tokens=0"),
        (lambda: gen("x", stop=""), "an empty stop text"),
        (lambda: gen("x", stop=["a", ""]), "an empty stop text"),
        (lambda: gen("x", regex="a", choices=["b"]), "regex and choices at once"),
        (lambda: gen("x", choices=[]), "must be different texts"),
        (lambda: gen("x", choices="yes"), "must be different texts"),
        (lambda: select("x", ["a", "a"]), "must be different texts"),
        (lambda: select("x"), "must be different texts"),
        (lambda: separate_reasoning(gen()), "beside a variable"),
        (lambda: separate_reasoning(gen("x", regex="a")), "a grammar holds"),
        (lambda: gen("x") + 3, "3 is a int"),
    ],
)
def test_mistakes_are_raised_where_they_are_written(make, problem):
    with pytest.raises(ProgramError, match=problem):
        make()


@pytest.mark.parametrize("field", ["temperature", "top_p", "min_p", "presence_penalty", "repetition_penalty"])
def test_numbers_outside_their_range(field):
    with pytest.raises(ConfigError, match=field):
        gen("x", **{field: -3.0})

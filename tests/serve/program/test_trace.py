import pytest

from cupola.serve.program import Role, assistant, gen, program, select, system, user


def traced(function, **known):
    return program(function).trace(**known)


def test_it_ends_at_the_first_argument():
    def p(s, topic):
        s += system("Be kind.") + user("About " + topic + ", please.")

    found = traced(p)
    assert [(t.role, t.text) for t in found.all] == [(Role.SYSTEM, "Be kind."), (Role.USER, "About ")]
    assert found.open is not None
    assert traced(p, topic="iron").text == "Be kind.About iron, please."


@pytest.mark.parametrize(
    "rest",
    [
        lambda s, x: s.__iadd__(gen("a")),
        lambda s, x: s.__iadd__(select("a", ["1", "2"])),
        lambda s, x: s.__iadd__(f"{x}"),
        lambda s, x: s.__iadd__(str(x)),
        lambda s, x: s.__iadd__(x),
        lambda s, x: s.__iadd__("no" if x == 1 else "yes"),
        lambda s, x: s.__iadd__("no" if x else "yes"),
        lambda s, x: [s.__iadd__("no") for _ in x],
        lambda s, x: s.__iadd__(x.title()),
        lambda s, x: s.__iadd__("no" * len(x)),
        lambda s, x: s.fork(2)[0].__iadd__("no"),
        lambda s, x: s["a"],
        lambda s, x: {}[3],
    ],
)
def test_it_ends_at_whatever_is_not_constant(rest):
    def p(s, x):
        s += "always "
        rest(s, x)
        s += "never"

    assert traced(p).text == "always "


def test_a_program_without_arguments_is_constant_up_to_its_first_gen():
    def p(s):
        with s.user():
            s += "Count."
        s += assistant("1, 2, " + gen("n"))

    assert traced(p).text == "Count.1, 2, "

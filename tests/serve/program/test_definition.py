import threading

import pytest

from cupola.serve.program import Ahead, ProgramError, gen, program, user
from cupola.serve.request import Sampling


@program
def capital(s, country, hint="none"):
    s += "Few examples. " + "Country: " + country + " "
    s += hint + gen("city")


def test_a_batch_keeps_its_order_and_its_errors_apart(engine, local):
    engine.context = 400
    countries = ["A", "B " * 300, "C"]
    states = capital.run_batch([{"country": c} for c in countries], backend=local, concurrency=2)
    assert states[0].text.startswith("Few examples. Country: A none")
    assert states[2].text.startswith("Few examples. Country: C none")
    with pytest.raises(ValueError, match="too long"):
        states[1]["city"]


def test_a_batch_is_as_wide_as_it_may_be(engine, local):
    engine.seconds = 0.05
    capital.run_batch([{"country": str(i)} for i in range(6)], backend=local, concurrency=3, ahead=Ahead.NOTHING)
    assert engine.most == 3
    assert len(engine.requests) == 6


def test_the_constant_prefix_is_computed_before_a_batch(engine, local, tokenizer):
    capital.run_batch([{"country": c} for c in "XYZ"], backend=local)
    hint, *asked = engine.requests
    assert tokenizer.decode(hint.prompt) == "Few examples. Country: "
    assert len(asked) == 3


def test_arguments_that_all_runs_share_are_constant_too(engine, local, tokenizer):
    @program
    def p(s, examples, question):
        s += f"{examples}\nQ: {question}" + gen("a")

    p.run_batch([{"examples": "1+1=2", "question": q} for q in "ab"], backend=local)
    assert tokenizer.decode(engine.requests[0].prompt) == "1+1=2\nQ: "


def test_started_programs_stream_while_they_run(engine, local):
    engine.answers["say: "] = "a b c d"
    go = threading.Event()

    @program
    def p(s):
        go.wait(5)
        s += "say: " + gen("x")
        s += " and " + s["x"]

    state = p.start(backend=local)
    go.set()
    assert "".join(state.stream("x")) == "a b c d"
    assert state.text == "say: a b c d and a b c d"


def test_errors_of_a_started_function_are_raised_by_reading(local):
    @program
    def p(s):
        raise KeyError("mine")

    state = p.start(backend=local)
    for read in (lambda: state["x"], state.wait):
        with pytest.raises(KeyError, match="mine"):
            read()


def test_programs_call_programs(engine, local):
    engine.answers["Country: X none"] = "Y"

    @program
    def outer(s):
        capital(s, "X")
        return s["city"]

    assert outer.run(backend=local).returned == "Y"


def test_the_runs_sampling_holds_where_a_gen_says_nothing(engine, local):
    @program
    def p(s):
        s += "a" + gen("x") + "b" + gen("y", temperature=0.5)

    p.run(backend=local, sampling=Sampling(temperature=0.0, top_k=3)).wait()
    assert [(r.sampling.temperature, r.sampling.top_k) for r in engine.requests] == [(0.0, 3), (0.5, 3)]


@pytest.mark.parametrize(
    ("arguments", "problem"), [({}, "country not given"), ({"county": "X"}, "Did you mean 'country'")]
)
def test_wrong_arguments(local, arguments, problem):
    with pytest.raises(ProgramError, match=problem):
        capital.run(backend=local, **arguments)


def test_wrong_batches(local):
    with pytest.raises(ProgramError, match=r"capital batch\[1\]"):
        capital.run_batch([{"country": "X"}, {}], backend=local)
    with pytest.raises(ProgramError, match="concurrency=0"):
        capital.run_batch([], backend=local, concurrency=0)
    assert capital.run_batch([], backend=local) == []


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda: None, "takes a state"),
        (lambda s, *rest: None, "takes a state"),
        (lambda s, backend: None, "'backend' is what"),
    ],
)
def test_functions_that_are_no_programs(function, problem):
    with pytest.raises(ProgramError, match=problem):
        program(function)


def test_what_is_no_text_is_refused_where_it_is_added(local):
    @program
    def p(s):
        s += user("a")
        s += 3

    with pytest.raises(ProgramError, match="3 is a int"):
        p.run(backend=local)

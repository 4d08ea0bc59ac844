import dataclasses
import threading
import time

import pytest

from cupola.serve.errors import ContextOverflow
from cupola.serve.program import (
    Join,
    Local,
    ProgramError,
    assistant,
    gen,
    program,
    select,
    separate_reasoning,
    system,
    user,
)
from cupola.serve.request import GrammarKind, Task


def test_a_program_writes_turns_and_fills_in_variables(engine, local):
    engine.answers["assistant\nIn short: "] = "good\nand more"

    @program
    def essay(s, topic):
        s += system("You grade.") + user("Topic: " + topic)
        s += assistant("In short: " + gen("summary", stop="\n"))

    state = essay.run(topic="iron", backend=local)
    assert state["summary"] == "good"
    assert state.messages == [
        {"role": "system", "content": "You grade."},
        {"role": "user", "content": "Topic: iron"},
        {"role": "assistant", "content": "In short: good"},
    ]
    assert state.result("summary").usage.completion_tokens > 0
    assert "".join(state.stream("summary")) == "good"


def test_everything_of_a_gen_reaches_the_engine(engine, local):
    @program
    def p(s):
        s += "x" + gen("a", limit_tokens=3, stop=["\n", "!"], temperature=0.0, top_k=5, min_p=0.1, seed=7, logprobs=2)
        s += "y" + gen("b", choices=["yes", "no"], top_p=0.5)

    p.run(backend=local).wait()
    a, b = engine.requests
    assert (a.limit_tokens, a.stop, a.top_logprobs) == (3, ("\n", "!"), 2)
    assert (a.sampling.temperature, a.sampling.top_k, a.sampling.min_p, a.sampling.seed) == (0.0, 5, 0.1, 7)
    assert (b.grammar.kind, b.grammar.text, b.sampling.top_p) == (GrammarKind.CHOICE, '["yes", "no"]', 0.5)


def test_branches_run_at_the_same_time(engine, local):
    engine.seconds = 0.25

    @program
    def p(s):
        s += "Grade: "
        branches = s.fork(4)
        for branch, side in zip(branches, "abcd", strict=True):
            branch += side + gen("grade")
        s.join(branches)

    began = time.monotonic()
    state = p.run(backend=local)
    assert time.monotonic() - began < 0.2, "nothing waits before something is read"
    assert len(state["grade"]) == 4
    assert time.monotonic() - began < 0.9, "a hint and four branches after one another take 1.25 s"
    assert engine.most == 4


def test_the_shared_prefix_is_computed_before_any_branch_asks(engine, local, tokenizer):
    @program
    def p(s):
        s += system("Long instructions.")
        for branch in s.fork(2):
            branch += user("go") + assistant(gen("x"))
            branch.wait()

    p.run(backend=local)
    hint, *asked = engine.requests
    assert hint.limit_tokens == 1
    assert all(r.prompt[: len(hint.prompt)] == hint.prompt for r in asked)
    assert tokenizer.decode(hint.prompt).endswith("Long instructions.\n<|start|>user\n")


def test_one_branch_needs_no_hint(engine, local):
    @program
    def p(s):
        (branch,) = s.fork(1)
        branch += "go" + gen("x")
        s.join([branch])

    assert len(p.run(backend=local)["x"]) == 1
    assert len(engine.requests) == 1


def test_concatenated_branches_stand_in_order(engine, local):
    engine.answers |= {"one:": "1", "two:": "2"}

    @program
    def p(s):
        s += "Start. "
        branches = s.fork(2)
        branches[1].__iadd__("two:" + gen("n"))
        branches[0].__iadd__("one:" + gen("n"))
        s.join(branches, Join.CONCATENATE)
        s += " End."

    assert p.run(backend=local).text == "Start. one:1two:2 End."


def test_the_next_prompt_begins_with_the_tokens_that_were_generated(engine, local, tokenizer):
    engine.answers |= {"assistant\n": "grade essay"}
    pieces = tuple(token for letter in "grade essay" for token in tokenizer.encode(letter).tolist())
    assert pieces != tuple(tokenizer.encode("grade essay").tolist()), "else the test shows nothing"
    engine.tokenizer = type(
        "Split", (), {"encode": lambda _, text: _Array(text, tokenizer), "decode": tokenizer.decode}
    )()

    @program
    def p(s):
        s += user("a") + assistant(gen("x")) + user("b") + assistant(gen("y"))

    p.run(backend=local).wait()
    first, second = engine.requests
    assert second.prompt[: len(first.prompt) + len(pieces)] == first.prompt + pieces


class _Array:
    def __init__(self, text, tokenizer):
        self.text, self.tokenizer = text, tokenizer

    def tolist(self):
        return [token for letter in self.text for token in self.tokenizer.encode(letter).tolist()]


def test_a_scope_takes_all_text_in_it(engine, local):
    engine.answers |= {"b: ": "2"}

    @program
    def p(s):
        s += "before "
        with s.var_scope("all"):
            s += "b: " + gen("b") + " after"

    assert p.run(backend=local)["all"] == "b: 2 after"


def test_turns_as_blocks(engine, local):
    @program
    def p(s):
        with s.user():
            s += "a"
            s += "b"
        with s.assistant():
            s += gen("x")

    assert p.run(backend=local).messages[0] == {"role": "user", "content": "ab"}


@pytest.mark.parametrize(
    ("answer", "thoughts", "rest"),
    [
        ("<think>so so</think>\n\nyes", "so so", "yes"),
        ("so so</think>yes", "so so", "yes"),
        ("<think>for ever", "for ever", ""),
        ("plain", "", "plain"),
    ],
)
def test_thoughts_are_kept_apart(engine, local, answer, thoughts, rest):
    engine.answers["assistant\n"] = answer

    @program
    def p(s):
        s += user("?") + assistant(separate_reasoning(gen("a")))

    state = p.run(backend=local)
    assert (state["a"], state["a_reasoning"]) == (rest, thoughts)
    assert state.messages[-1]["content"] == rest


def test_select_takes_the_likeliest_and_goes_on_from_it(engine, local, tokenizer):
    engine.favourite = set(tokenizer.encode("no").tolist())

    @program
    def p(s):
        s += "Good? " + select("good", ["yes", "no"]) + ". So: " + gen("so")

    state = p.run(backend=local)
    assert state["good"] == "no"
    assert len(state.result("good").scores) == 2
    state.wait()
    scored = [r for r in engine.requests if r.task is Task.SCORE]
    assert len(scored) == 2
    assert engine.requests[0].prompt == scored[0].prompt[: len(engine.requests[0].prompt)], "the prefix comes first"
    assert tokenizer.decode(engine.requests[-1].prompt) == "Good? no. So: "


def test_an_error_in_a_branch_is_raised_by_reading_with_its_place(engine, local):
    engine.context = 200

    @program
    def p(s):
        branches = s.fork(2)
        branches[0].__iadd__("short" + gen("x"))
        branches[1].__iadd__("long " * 200 + gen("x"))
        s.join(branches)
        s += "never" + gen("y")
        return branches

    state = p.run(backend=local)
    with pytest.raises(ContextOverflow, match=r"test_executor\.py:\d+, gen 'x', prompt: too long") as raised:
        state["x"]
    assert str(raised.value).count("test_executor.py") == 1, "the place is told once"
    with pytest.raises(ContextOverflow):
        state["y"]
    with pytest.raises(ContextOverflow):
        list(state.stream("y"))
    assert state.returned[0]["x"], "the other branch is well"
    assert not any(r.prompt[-5:] == "never" for r in engine.requests)


def test_an_error_of_the_engine_ends_the_state_and_its_forks(engine, local):
    engine.fails = RuntimeError("the device is gone")

    @program
    def p(s):
        s += "a" + gen("x")
        (branch,) = s.fork(1)
        branch += "b" + gen("y")
        return branch

    state = p.run(backend=local)
    for read in (lambda: state["x"], lambda: state.returned["y"], state.wait):
        with pytest.raises(RuntimeError, match="device is gone"):
            read()


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (lambda s: s.__iadd__(user("a" + gen("x"))), "a model cannot speak in a turn of the user"),
        (lambda s: s.__iadd__(user("a")).__iadd__(gen("x")), "after turns that are closed"),
        (lambda s: s.__iadd__("text").__iadd__(user("a")), "after text that stands in no role"),
        (lambda s: s.__iadd__(user("a")).__iadd__("text"), "stands in no role"),
        (lambda s: s.__iadd__(user(assistant("a"))), "inside one of the user"),
    ],
)
def test_what_cannot_be_said_is_refused(local, write, problem):
    @program
    def p(s):
        write(s)

    with pytest.raises(ProgramError, match=problem):
        p.run(backend=local).wait()


def test_unknown_variables_are_refused_at_once(local):
    @program
    def p(s):
        s += "a" + gen("summary")

    with pytest.raises(ProgramError, match="Did you mean 'summary'"):
        p.run(backend=local)["sumary"]


def test_joining_oneself_and_empty_forks_are_refused(local):
    @program
    def alone(s):
        s.join([s])

    @program
    def empty(s):
        s.fork(0)

    for each, problem in ((alone, "joins itself"), (empty, "0 branches")):
        with pytest.raises(ProgramError, match=problem):
            each.run(backend=local)


def test_roles_need_a_template(served, engine):

    @program
    def p(s):
        s += user("a") + assistant(gen("x"))

    with pytest.raises(ProgramError, match="has no chat template"):
        p.run(backend=Local(dataclasses.replace(served, template=None)))["x"]


def test_no_thread_outlives_its_work(local):

    @program
    def p(s):
        s += "a" + gen("x")

    p.run(backend=local).wait()
    deadline = time.monotonic() + 5
    while any(t.name == "cupola-program" for t in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)

import dataclasses
import logging

import pytest

from cupola.interop.template import ChatTemplate
from cupola.serve.program import Local, assistant, gen, program, user
from cupola.serve.program.local import kept
from cupola.serve.program.transcript import Role, Span, Transcript


def ids(tokenizer, text):
    return tuple(tokenizer.encode(text).tolist())


def test_tokens_of_a_stop_and_of_an_end_are_no_part_of_the_text(tokenizer):
    tokens = ids(tokenizer, "grade") + ids(tokenizer, "\nmore") + (tokenizer.end,)
    assert kept(tokenizer, Span("grade", tokens)) == ids(tokenizer, "grade")
    assert kept(tokenizer, Span("grade", (*ids(tokenizer, "grade"), tokenizer.end))) == ids(tokenizer, "grade")


@pytest.mark.parametrize("text", ["grade thé é", "😀x", "a😀"])
@pytest.mark.parametrize("stop", ["", "!", "é", "😀"])
def test_whatever_is_kept_decodes_to_the_text(tokenizer, text, stop):
    tokens = tuple(t for c in text + stop for t in ids(tokenizer, c))
    assert tokenizer.decode(kept(tokenizer, Span(text, tokens))) == text


def test_what_all_continuations_begin_with(local, tokenizer):
    said = Transcript().opened(Role.USER).written("The furnace")
    prefix = local.session().prefix(said)
    assert tokenizer.decode(prefix) == "<|start|>user\nThe furnace"
    for rest in (" melts", "s", "\n"):
        prompt = local.session().prompt(said.written(rest).closed())
        assert prompt[: len(prefix) - 1] == prefix[:-1], "all but a token that may grow"
    assert local.session().prefix(Transcript()) == ()


def test_a_template_that_rewrites_earlier_turns_is_followed_and_told_of(engine, served, caplog):

    trims = "{% for m in messages %}{{ m.role }}:{{ m.content | trim }};{% endfor %}assistant:"
    engine.answers = {"assistant:": "  spaced  "}

    @program
    def p(s):
        s += user("a") + assistant(gen("x")) + user("b") + assistant(gen("y"))

    with caplog.at_level(logging.WARNING):
        p.run(backend=Local(dataclasses.replace(served, template=ChatTemplate(trims)))).wait()
    assert engine.tokenizer.decode(engine.requests[1].prompt) == "user:a;assistant:spaced;user:b;assistant:"
    assert "otherwise than they were generated" in caplog.text

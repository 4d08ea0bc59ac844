import pytest
import typer

from cupola.train.folder import RunFolder
from cupola.train.load import load

PROMPT = "the furnace "


def test_it_goes_on_with_the_prompt_and_the_seed_decides(cupola, trained):
    first = cupola("complete", trained, PROMPT, "--tokens", 20)
    assert first.code == 0
    assert first.out.startswith(PROMPT)
    assert len(first.out) > len(PROMPT) + 5
    assert cupola("complete", trained, PROMPT, "--tokens", 20).out == first.out
    assert cupola("complete", trained, PROMPT, "--tokens", 20, "--seed", 1).out != first.out


def test_the_likeliest_token_needs_no_seed(cupola, trained):
    texts = {
        cupola("complete", trained, PROMPT, "--tokens", 10, "--seed", seed, *how).out
        for seed, how in enumerate((("--temperature", 0), ("--top-k", 1)))
    }
    assert len(texts) == 1


@pytest.mark.parametrize("prompt", ["", "größer \u2192 \U0001f514", ":key: [red]x[/] \t tab\n"], ids=ascii)
def test_a_prompt_is_printed_as_it_is(cupola, trained, prompt):
    ended = cupola("complete", trained, prompt, "--tokens", 3)
    assert ended.code == 0
    assert ended.out.startswith(prompt)


def test_text_is_streamed_and_ends_where_the_context_ends(cupola, trained, monkeypatch):
    pieces, echo = [], typer.echo
    monkeypatch.setattr(typer, "echo", lambda piece, nl=True: (pieces.append(piece), echo(piece, nl=nl)))
    ended = cupola("complete", trained, PROMPT, "--tokens", 1000)
    tokenizer = load(RunFolder.open(trained)).tokenizer
    assert ended.out == PROMPT + "".join(pieces) + "\n"
    assert 1 < len(pieces) <= 64 - len(tokenizer.encode(PROMPT))


@pytest.mark.parametrize(
    ("words", "problem", "remedy"),
    [
        (["iron " * 100], "max_length=64", "Use a prompt below 64 tokens"),
        (["a", "--temperature", "-1"], "temperature=-1.0", "Use 0"),
        (["a", "--top-k", "0"], "top_k=0", "Use 1 or more"),
        (["a", "--top-p", "0"], "top_p=0.0", "above 0"),
        (["a", "--step", "7"], "no complete checkpoint of step 7", "There are steps 8, 12"),
        (["half \udc80"], "half of a surrogate pair", "Repair the text"),
    ],
)
def test_what_cannot_be_continued_is_refused(cupola, trained, words, problem, remedy):
    ended = cupola("complete", trained, *words)
    assert ended.code == 2
    assert problem in ended.err
    assert remedy in ended.err


@pytest.mark.parametrize("option", [("--tokens", 0), ("--seed", -1)])
def test_numbers_out_of_range_are_refused(cupola, trained, option):
    assert cupola("complete", trained, "a", *option).code == 2

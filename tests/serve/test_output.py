import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupola.data.tokenizer import Tokenizer
from cupola.serve.output import Output
from cupola.serve.request import Reason, Request, Token

TOKENIZER = Tokenizer.train(["the furnace melts iron and pours it into a mould é ✓"], vocabulary=280)


def told(text: str, *, stop=(), limit=1000, stop_tokens=frozenset(), chunk=1):
    """Feeds a text's tokens and returns (text given out, ending)."""
    output = Output(Request(id="x", prompt=(1,), limit_tokens=limit, stop=stop, stop_tokens=stop_tokens), TOKENIZER)
    tokens = [Token(int(i), -1.0) for i in TOKENIZER.encode(text)]
    said, seen = "", []
    for first in range(0, len(tokens), chunk):
        piece = output.feed(tokens[first : first + chunk])
        said += piece.text
        seen += piece.tokens
        assert text.startswith(said)  # nothing is ever taken back
        if output.ending is not None:
            break
    return said, output.ending, seen


def test_a_stop_text_is_never_part_of_the_text():
    said, ending, _ = told("the furnace melts iron", stop=("melts",))
    assert (said, ending.reason, ending.stop) == ("the furnace ", Reason.STOP, "melts")


def test_the_stop_text_that_comes_first_wins():
    said, ending, _ = told("the furnace melts iron", stop=("iron", "furn"))
    assert (said, ending.stop) == ("the ", "furn")


def test_the_beginning_of_a_stop_text_is_given_out_once_it_is_none():
    said, ending, _ = told("the furnace melts", stop=("furnish",), limit=len(TOKENIZER.encode("the furnace melts")))
    assert (said, ending.reason) == ("the furnace melts", Reason.LENGTH)


def test_a_stop_token_has_no_text_and_ends():
    token = int(TOKENIZER.encode("the furnace")[-1])
    said, ending, seen = told("the furnace", stop_tokens=frozenset({token}))
    assert ending.reason is Reason.STOP
    assert seen[-1].id == token
    assert said == TOKENIZER.decode([t.id for t in seen[:-1]])


def test_tokens_after_the_end_are_left_out():
    _, ending, seen = told("the furnace melts iron and pours", limit=3, chunk=100)
    assert (ending.reason, len(seen)) == (Reason.LENGTH, 3)


def test_log_probabilities_are_kept_only_where_asked():
    _, _, seen = told("the furnace")
    assert all(token.log_prob is None for token in seen)
    output = Output(Request(id="x", prompt=(1,), top_logprobs=0), TOKENIZER)
    assert output.feed([Token(70, -2.0)]).tokens == (Token(70, -2.0),)


@given(
    st.text(alphabet="the furnacé ✓", max_size=40),
    st.lists(st.text(alphabet="the furnacé ✓", min_size=1, max_size=4), max_size=3),
    st.integers(1, 5),
)
def test_any_text_and_stops_give_what_stands_before_the_first_that_is_whole(text, stops, chunk):
    if not text:
        return
    limit = len(TOKENIZER.encode(text))
    said, ending, _ = told(text, stop=tuple(stops), limit=limit, chunk=chunk)
    found = [(text.find(stop) + len(stop), text.find(stop), stop) for stop in stops if stop in text]
    assert said == (text[: min(found)[1]] if found else text)
    assert (ending.reason, ending.stop) == ((Reason.STOP, min(found)[2]) if found else (Reason.LENGTH, None))


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_the_stop_text_that_is_whole_first_ends_it_however_tokens_come(chunk):
    said, ending, _ = told("aha", stop=("aha", "h"), limit=9, chunk=chunk)
    assert (said, ending.stop) == ("a", "h")


@pytest.mark.parametrize("text", ["é", "✓✓", "a é b"])
def test_half_a_character_is_never_given_out(text):
    output = Output(Request(id="x", prompt=(1,), limit_tokens=99), TOKENIZER)
    pieces = [output.feed([Token(int(i))]).text for i in TOKENIZER.encode(text)]
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert "".join(pieces) == text

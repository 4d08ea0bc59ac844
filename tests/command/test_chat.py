import pytest

from cupola.command import chat
from cupola.core.dtype import FLOAT32
from cupola.interop.open import Pretrained
from cupola.interop.template import ChatTemplate
from cupola.serve.engine import Engine
from cupola.serve.request import Sampling

TEMPLATE = ChatTemplate("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ")


@pytest.fixture
def found(language):
    return Pretrained(
        name="small", model=language.model, params=language.params, tokenizer=language.tokenizer, template=TEMPLATE
    )


def talked(found, small, monkeypatch, capsys, questions):
    """The terminal after these questions, and the end of input."""
    left = iter(questions)

    def prompt(*_, **__):
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(chat.typer, "prompt", prompt)
    with Engine(found.model, found.params, found.tokenizer, small) as engine:
        chat.talk(engine, found, system="be brief", sampling=Sampling(temperature=0.0), limit_tokens=6)
        return capsys.readouterr().out, engine.stats()


def test_each_answer_is_printed_with_its_speed_and_builds_on_the_last(found, small, monkeypatch, capsys):
    out, stats = talked(found, small, monkeypatch, capsys, ["hi", "more"])
    assert out.count("tokens/s") == 2
    assert stats.cached_tokens > 0


def test_a_new_conversation_forgets_and_quit_ends(found, small, monkeypatch, capsys):
    out, _ = talked(found, small, monkeypatch, capsys, ["hi", "/new", "hi", "/quit", "never asked"])
    answers = [part for part in out.split("\n") if part and "tokens/s" not in part]
    assert answers[0] == answers[1]
    assert out.count("tokens/s") == 2


def test_a_long_conversation_drops_its_oldest_turns(found, small, monkeypatch, capsys):
    out, stats = talked(found, small, monkeypatch, capsys, ["the furnace melts iron " * 8] * 4)
    assert out.count("tokens/s") == 4
    assert stats.finished.keys() <= {"length", "stop"}


def test_a_model_that_does_not_chat_is_refused(cupola, trained):
    ended = cupola("chat", trained, "--precision", "float32")
    assert ended.code == 2
    assert "cupola complete" in ended.err


def test_float32_is_float32():
    assert chat.precision_of("float32") is FLOAT32

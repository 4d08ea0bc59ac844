"""A fake engine: it answers by rules, at the speed that a test wants, and remembers what it was asked."""

import hashlib
import threading
import time

import pytest

from cupola.data.tokenizer import Tokenizer
from cupola.interop.template import ChatTemplate
from cupola.serve.errors import ContextOverflow
from cupola.serve.generator import Served, Stats
from cupola.serve.program.local import Local
from cupola.serve.request import Finish, Piece, Reason, Task, Token, Usage

TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


class FakeEngine:
    """Answers a prompt that ends with `key` with `answers[key]`, a token at a time; else with the prompt's hash.

    Scores of tokens come from a hash too, or from `favourite`: its tokens are likely after anything.
    """

    def __init__(self, tokenizer):
        self.tokenizer, self.answers, self.favourite = tokenizer, {}, None
        self.seconds, self.context, self.fails = 0.0, 10_000, None
        self.requests, self.aborted = [], []
        self.now, self.most = 0, 0
        self._lock = threading.Lock()

    def submit(self, request, receive):
        if len(request.prompt) + request.limit_tokens > self.context:
            raise ContextOverflow("too long", where="prompt", remedy="Send less.")
        with self._lock:
            self.requests.append(request)
            self.now += 1
            self.most = max(self.most, self.now)
        threading.Thread(target=self._answer, args=(request, receive), daemon=True).start()

    def abort(self, request_id):
        self.aborted.append(request_id)

    def stats(self):
        return Stats()

    def _answer(self, request, receive):
        time.sleep(self.seconds)
        with self._lock:
            self.now -= 1
        if self.fails is not None:
            receive(Piece(finish=Finish(Reason.ERROR, Usage(0), error=self.fails)))
        elif request.task is Task.SCORE:
            prompt = tuple(Token(t, self._score(t)) for t in request.prompt[1:])
            receive(Piece(finish=Finish(Reason.STOP, Usage(len(request.prompt)), prompt=prompt)))
        else:
            self._generate(request, receive)

    def _generate(self, request, receive):
        text = self.tokenizer.decode(request.prompt)
        key = max((k for k in self.answers if text.endswith(k)), key=len, default=None)
        answer = self.answers[key] if key else hashlib.sha256(text.encode()).hexdigest()[:6]
        cut, stop = min(((answer.find(s), s) for s in request.stop if s in answer), default=(len(answer), None))
        reason = Reason.STOP
        tokens = self.tokenizer.encode(answer).tolist()[: request.limit_tokens]
        if len(tokens) == request.limit_tokens:
            reason = Reason.LENGTH
        shown = 0
        for token in tokens:
            whole = self.tokenizer.decode([token])
            receive(Piece(text=answer[shown:cut][: len(whole)], tokens=(Token(token),)))
            shown += len(whole)
            if shown > cut:
                break
        usage = Usage(len(request.prompt), 0, len(tokens))
        receive(Piece(finish=Finish(reason, usage, stop=stop)))

    def _score(self, token):
        if self.favourite is not None and token in self.favourite:
            return -0.1
        return -1.0 - int.from_bytes(hashlib.sha256(bytes([token % 251])).digest()[:2], "big") / 65536


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer.train(["grade the clarity of this essay: A or B or C, yes or no, and then sum up"] * 3, 280)


@pytest.fixture
def engine(tokenizer):
    return FakeEngine(tokenizer)


@pytest.fixture
def served(engine, tokenizer):
    return Served(
        name="fake",
        engine=engine,
        tokenizer=tokenizer,
        max_length=10_000,
        template=ChatTemplate(TEMPLATE),
        stop_tokens=frozenset({tokenizer.end}),
    )


@pytest.fixture
def local(served):
    return Local(served)

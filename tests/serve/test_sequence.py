import pytest

from cupola.serve.request import Request, Task
from cupola.serve.sequence import Plan, Row, Sequence


def made(**changes):
    return Sequence(request=Request(**({"id": "a", "prompt": (1, 2, 3), "limit_tokens": 4} | changes)), arrival=1)


@pytest.mark.parametrize(
    ("changes", "most", "reads"),
    [
        ({}, 7, False),
        ({"prompt_logprobs": True}, 7, True),
        ({"task": Task.SCORE}, 3, True),
        ({"task": Task.EMBED}, 3, True),
    ],
)
def test_what_a_request_takes_follows_from_its_task(changes, most, reads):
    sequence = made(**changes)
    assert (sequence.most_tokens, sequence.reads_prompt) == (most, reads)


def test_the_last_token_is_never_looked_up():
    assert made(adapter="red", namespace="me").matchable == (1, 2)
    assert made(adapter="red", namespace="me").key == ("me", "red")


def test_a_row_reads_known_tokens_and_its_draft():
    sequence = made()
    sequence.tokens += [4, 5]
    draft = Row(sequence, 4, 3, True, draft=(8, 9))
    assert (draft.stop, draft.tokens, sequence.generated) == (7, [5, 8, 9], [4, 5])
    chunk = Row(sequence, 1, 2, False)
    assert chunk.tokens == [2, 3]
    assert Row(sequence, 5, 1, True, unknown=True).tokens == []
    assert Plan((draft,), (chunk,)).rows == (draft, chunk)

import pytest

from cupola.core.errors import ConfigError
from cupola.serve.admit import Limits, admit, check_queue
from cupola.serve.errors import Busy, ContextOverflow, InvalidRequest, NotFound
from cupola.serve.request import Request, Task

LIMITS = Limits(max_length=20, page_size=4, pages=4)


def ask(prompt=(1, 2), limits=LIMITS, **changes):
    admit(
        Request(id="a", prompt=tuple(prompt), **({"limit_tokens": 4} | changes)), limits, vocabulary=9, adapters={"red"}
    )


@pytest.mark.parametrize(
    ("request_", "error", "text"),
    [
        ({"prompt": ()}, InvalidRequest, "prompt: the prompt has no tokens"),
        ({"prompt": (1, 9)}, InvalidRequest, "token 9 at position 1 .*\n.* 0 to 8"),
        ({"prompt": (-1,)}, InvalidRequest, "token -1 at position 0"),
        ({"limit_tokens": -1}, InvalidRequest, "limit of -1"),
        ({"adapter": "rde"}, NotFound, "no adapter 'rde'\n.*red"),
        (
            {"limit_tokens": 12},
            ContextOverflow,
            "limit_tokens: 2 .* 12 .* 14, .* memory holds 13\n.*by 1 .* at most 11",
        ),
        ({"prompt": (1,) * 30}, ContextOverflow, "prompt: 30 .* memory holds 13\nShorten the prompt by 21 tokens\\.$"),
        ({"prompt": (1,) * 13, "task": Task.SCORE}, ContextOverflow, "memory holds 12"),
    ],
)
def test_what_can_never_be_served_is_refused(request_, error, text):
    with pytest.raises(error, match=text):
        ask(**request_)


def test_the_context_is_a_bound_too():
    with pytest.raises(ContextOverflow, match="the context holds 8"):
        ask(limits=LIMITS.replace("max_length", 8), limit_tokens=7)


@pytest.mark.parametrize(
    "request_",
    [
        {"limit_tokens": 11},
        {"limit_tokens": 0, "prompt": (1,) * 12},
        {"prompt": (1,) * 12, "task": Task.EMBED},
        {"adapter": "red"},
    ],
)
def test_what_just_fits_is_served(request_):
    ask(**request_)


def test_a_full_queue_says_when_to_try_again():
    limits = Limits(max_running=4, max_waiting=10)
    check_queue(9, limits)
    with pytest.raises(Busy, match="10 requests wait") as refused:
        check_queue(10, limits)
    assert refused.value.retry_after_seconds == 3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"pages": 1}, "pages: pages=1 is too few\nUse 2 or more"),
        ({"max_running": 0}, "max_running"),
        ({"max_wait_steps": 0}, "max_wait_steps"),
        ({"chunk_widths": (64, 32)}, "do not ascend"),
        ({"budget_tokens": 8}, "budget_tokens: .* none of 8 tokens ends a page of 16\nUse 16 or more"),
        ({"chunk_widths": (4, 8)}, "chunk_widths: .* none of 8"),
        ({"chunk_widths": (32, 1024)}, "at most budget_tokens=512"),
    ],
)
def test_limits_that_leave_nothing_are_refused(changes, text):
    with pytest.raises(ConfigError, match=text):
        Limits(**changes)


@pytest.mark.parametrize(("widths", "padded"), [((), 67), ((64, 128), 128), ((8,), 72)])
def test_prompts_are_padded_to_the_smallest_width(widths, padded):
    assert Limits(budget_tokens=512, page_size=8, chunk_widths=widths).padded_tokens(67) == padded

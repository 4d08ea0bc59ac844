"""How many tokens a call took, as the OpenAI API counts them: a prompt once, however many choices it has."""

from collections.abc import Sequence
from typing import Any

from cupola.serve.request import Finish


def usage(finishes: Sequence[Finish], *, choices: int = 1, reasoning_tokens: int = 0) -> dict[str, Any]:
    """Returns the `usage` of an answer.

    Args:
        finishes: of all requests, the choices of a prompt side by side.
        choices: of each prompt.
        reasoning_tokens: of the generated ones, how many were thoughts.
    """
    prompts = [finish.usage for finish in finishes[::choices]]
    prompt = sum(one.prompt_tokens for one in prompts)
    completion = sum(finish.usage.completion_tokens for finish in finishes)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in prompts)},
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens},
    }

"""Greedy answers of an engine, also in a process of its own, on the device that JAX uses there.

Not here: what is expected of them (`test_run.py`).
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from cupola.core.dtype import FLOAT32
from cupola.interop.open import open_model
from cupola.serve import measure
from cupola.serve.engine import Engine
from cupola.serve.options import Options, WarmUp

OPTIONS = Options(max_running=8, page_size=4, budget_tokens=32, memory_bytes=2**20, warm_up=WarmUp.ESSENTIAL)
PROMPTS = [tuple(range(3 + first, 3 + first + length)) for first, length in enumerate((5, 70, 9, 33, 1, 17))]
"""Shorter and longer than a page, a chunk and a block of keys."""
NEW_TOKENS = 24


def answers(model, params, tokenizer) -> list[list[int]]:
    """Returns what follows each prompt; they are asked at once, so that prompts and decoding mix."""
    with Engine(model, params, tokenizer, OPTIONS) as engine, ThreadPoolExecutor(len(PROMPTS)) as several:
        ask = partial(measure.ask, engine, limit_tokens=NEW_TOKENS)
        return [list(answer.tokens) for answer in several.map(ask, PROMPTS)]


if __name__ == "__main__":
    opened = open_model(sys.argv[1], precision=FLOAT32)
    print(json.dumps(answers(opened.model, opened.params, opened.tokenizer)))

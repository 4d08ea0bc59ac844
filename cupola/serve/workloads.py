"""Loads to measure an engine with: the shapes of the SGLang paper's programs, with made-up words.

Not here: measuring (`measure.py`). A workload is some sessions that run side by side; a session asks
for texts, some at once, and what it asks next may depend on the answers.
Invariant: the same seed gives the same prompts, whatever the engine answers in length.
Source: Zheng et al. 2024, "SGLang", section 6.1 (multi-turn chat, few-shot, tree of thought, agents).
"""

import random
from collections.abc import Callable, Generator, Sequence

Prompt = tuple[int, ...]
Session = Generator[list[Prompt], list[Prompt], None]
"""Yields prompts to be continued at once, and is sent the continuations."""


class Words:
    """Draws made-up texts.

    Args:
        tokens: what texts consist of.
        seed: of the draw.
    """

    def __init__(self, tokens: Sequence[int], seed: int):
        self._tokens, self._random = tokens, random.Random(seed)

    def __call__(self, length: int) -> Prompt:
        """Returns so many tokens."""
        return tuple(self._random.choices(self._tokens, k=length))


def multi_turn(words: Words, sessions: int = 8, turns: int = 4, question: int = 64) -> list[Session]:
    """Conversations: each turn's prompt is all that was said before, and a question."""

    def talk(questions: list[Prompt]) -> Session:
        said: Prompt = ()
        for asked in questions:
            (answer,) = yield [said + asked]
            said = said + asked + answer

    return [talk([words(question) for _ in range(turns)]) for _ in range(sessions)]


def few_shot(
    words: Words, questions: int = 16, examples: int = 5, example: int = 96, question: int = 32
) -> list[Session]:
    """Questions after the same worked examples."""
    shown: Prompt = sum((words(example) for _ in range(examples)), ())

    def ask(asked: Prompt) -> Session:
        yield [shown + asked]

    return [ask(words(question)) for _ in range(questions)]


def tree_of_thought(
    words: Words, problems: int = 2, depth: int = 3, branches: int = 3, problem: int = 256
) -> list[Session]:
    """Problems whose thoughts branch: each prompt is the way from the root."""

    def think(root: Prompt, hints: list[Prompt]) -> Session:
        ways = [root]
        for _ in range(depth):
            asked = [way + hint for way in ways for hint in hints]
            answers = yield asked
            ways = [way + answer for way, answer in zip(asked, answers, strict=True)][:branches]

    return [think(words(problem), [words(8) for _ in range(branches)]) for _ in range(problems)]


def agents(words: Words, sessions: int = 6, steps: int = 4, system: int = 320, observation: int = 48) -> list[Session]:
    """Agents with one long instruction: each step adds an observation."""
    instruction = words(system)

    def act(task: Prompt, seen: list[Prompt]) -> Session:
        way = instruction + task
        for new in seen:
            (answer,) = yield [way]
            way = way + answer + new

    return [act(words(32), [words(observation) for _ in range(steps)]) for _ in range(sessions)]


def unlike(words: Words, prompts: int = 32, length: int = 128) -> list[Session]:
    """Prompts that share nothing: the control."""

    def ask(prompt: Prompt) -> Session:
        yield [prompt]

    return [ask(words(length)) for _ in range(prompts)]


WORKLOADS: dict[str, Callable[[Words], list[Session]]] = {
    "multi-turn": multi_turn,
    "few-shot": few_shot,
    "tree of thought": tree_of_thought,
    "agents": agents,
    "nothing shared": unlike,
}

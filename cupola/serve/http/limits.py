"""What one client may take: sizes, counts and times, each with its reason.

Not here: where they are enforced (`call.py`, `sampling.py`).
"""

from cupola.config.value import Value
from cupola.core.errors import ConfigError


class Limits(Value):
    """Bounds on what a request may ask and how long it may take.

    Args:
        body_bytes: of a request's body.
        body_seconds: until the whole body has come.
        write_seconds: for which a client may leave an answer unread before its request is aborted.
        request_seconds: from submission to the last token; None: no limit.
        requests_per_caller: answered at the same time; more get 429.
        inputs: prompts or texts in one request.
        choices: `n`.
        stop_texts: in `stop`.
        stop_characters: of each.
        top_logprobs: alternatives for each token.
        logit_biases: tokens in `logit_bias`.
        priority: the largest, and its negative the smallest.
        speech_characters: of a text that is to be spoken.
        window: prompts of one request that are with the engine at the same time.
    """

    body_bytes: int = 16 * 1024 * 1024
    body_seconds: float = 30.0
    write_seconds: float = 30.0
    request_seconds: float | None = 600.0
    requests_per_caller: int = 256
    inputs: int = 2048
    choices: int = 128
    stop_texts: int = 16
    stop_characters: int = 1024
    top_logprobs: int = 20
    logit_biases: int = 1024
    priority: int = 100
    speech_characters: int = 4096
    window: int = 128

    def check(self) -> None:
        for name, low in {"stop_texts": 0, "top_logprobs": 0, "logit_biases": 0, "priority": 0}.items():
            if getattr(self, name) < low:
                raise ConfigError(f"{name}={getattr(self, name)} is negative", where=name, remedy="Use 0 or more.")
        for name in (
            "body_bytes",
            "requests_per_caller",
            "inputs",
            "choices",
            "stop_characters",
            "window",
            "speech_characters",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} lets nothing in", where=name, remedy="Use 1 or more.")
        for name in ("body_seconds", "write_seconds", "request_seconds"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise ConfigError(f"{name}={seconds} leaves no time", where=name, remedy="Use a number above 0.")

"""The peer of bench/kernels_cpu.py: torch's form of each operation, where it has one.

Run by the Python of .venv-kernels_cpu. A function here has the name of an operation of `cupola/kernels`, takes the
sizes of a case by their letters, and returns a call and the tensors that it differentiates.
Not here: what is compared and how (`bench/kernels_cpu.py`).
"""

import functools
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import harness

Run = tuple[Callable[[], torch.Tensor], tuple[torch.Tensor, ...]]
Normal = Callable[..., torch.Tensor]


def dot(normal: Normal, form: str, *, M: int, K: int, F: int) -> Run | None:
    """Returns the product with a plain matrix; torch's quantized ones are of other formats."""
    x = normal(M, K)
    if form == "":
        w = normal(K, F)
        return lambda: x @ w, (x, w)
    w = normal(F, K)
    return (lambda: torch.nn.functional.linear(x, w), (x, w)) if form == "Turned" else None


def attend(normal: Normal, form: str, *, B: int, T: int, H: int, K: int, C: int) -> Run:
    """Returns causal attention, by the fused kernel that torch chooses."""
    query, key, value = (normal(B, heads, T, C) for heads in (H, K, K))
    attention = functools.partial(F.scaled_dot_product_attention, is_causal=True, enable_gqa=H != K)
    return lambda: attention(query, key, value), (query, key, value)


def rms_norm(normal: Normal, form: str, *, N: int, D: int) -> Run:
    """Returns the norm with a scale."""
    x, scale = normal(N, D), normal(D)
    return lambda: F.rms_norm(x, (D,), scale, 1e-6), (x, scale)


def layer_norm(normal: Normal, form: str, *, N: int, D: int) -> Run:
    """Returns the norm with scale and shift."""
    x, scale, shift = normal(N, D), normal(D), normal(D)
    return lambda: F.layer_norm(x, (D,), scale, shift, 1e-6), (x, scale, shift)


def rotate(normal: Normal, form: str, *, B: int, T: int, H: int, C: int) -> Run:
    """Returns the rotation as transformers writes it: halves of a head are turned."""
    x, cosine, sine = normal(B, T, H, C), normal(1, T, 1, C), normal(1, T, 1, C)

    def run() -> torch.Tensor:
        left, right = x.chunk(2, -1)
        return x * cosine + torch.cat((-right, left), -1) * sine

    return run, (x,)


def gate(normal: Normal, form: str, **sizes: int) -> Run:
    """Returns SwiGLU's gate."""
    a, b = (normal(sizes["N"], sizes["F"]) for _ in range(2))
    return lambda: F.silu(a) * b, (a, b)


def linear_cross_entropy(normal: Normal, form: str, *, B: int, T: int, D: int, V: int) -> Run:
    """Returns the loss over all logits."""
    x, head, targets = normal(B * T, D), normal(V, D), torch.arange(B * T) % V
    return lambda: F.cross_entropy(F.linear(x, head).float(), targets, reduction="sum"), (x, head)


def linear_log_probs(normal: Normal, form: str, *, B: int, T: int, D: int, V: int) -> Run:
    """Returns the targets' log-probabilities over all logits."""
    x, head, targets = normal(B * T, D), normal(V, D), torch.arange(B * T) % V
    return lambda: -F.cross_entropy(F.linear(x, head).float(), targets, reduction="none"), (x, head)


def lstm(normal: Normal, form: str, *, B: int, T: int, W: int) -> Run:
    """Returns the layer over an input that is as wide as the state; ours is given the input's product."""
    made = torch.nn.LSTM(W, W, batch_first=True).to(normal(1).dtype)
    x = normal(B, T, W)
    return lambda: made(x)[0], (x, *made.parameters())


def look_up(normal: Normal, form: str, *, N: int, V: int, D: int) -> Run:
    """Returns rows of a table."""
    table, tokens = normal(V, D), torch.randint(0, V, (N,))
    return lambda: F.embedding(tokens, table), (table,)


class Cases(dict[str, Callable[[], Any]]):
    """The runs, by what is asked as JSON; only the last is kept."""

    def __missing__(self, asked: str) -> Callable[[], Any]:
        return run_of(asked)


@functools.lru_cache(maxsize=1)
def run_of(asked: str) -> Callable[[], Any]:
    """Returns a run of a case; one that says that it cannot, where torch has no such operation."""
    case = json.loads(asked)
    made = globals().get(case["operation"])
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[case["dtype"]]

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float32).to(dtype).requires_grad_(case["gradient"])

    found = made and made(normal, case["form"], **case["sizes"])
    if not found:
        return lambda: {"cannot": 1}
    forward, differentiated = found

    def run() -> None:
        if not case["gradient"]:
            with torch.no_grad():
                forward()
            return
        out = forward()
        torch.autograd.grad(out, differentiated, torch.ones_like(out))

    return run


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    versions = {"torch": torch.__version__, "peer python": platform.python_version()}
    harness.serve(Cases({"": lambda: None}), versions=versions)

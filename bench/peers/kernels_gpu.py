"""The peers of bench/kernels_gpu.py: plain torch and liger-kernel, each operation alone or a Llama that is trained.

Run by the Python of .venv-kernels_gpu. Not here: what is compared and how (`bench/kernels_gpu.py`).
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import harness

CALLS = 10
"""Queued in one run, as on our side."""
EPSILON = 1e-6


def main() -> None:
    """Serves the cases of one side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("torch", "liger"))
    parser.add_argument("device", choices=("cuda", "cpu"))
    parser.add_argument("model", type=json.loads)
    asked = parser.parse_args()
    versions = {"torch": torch.__version__}
    if asked.side == "liger":
        from importlib.metadata import version

        versions["liger-kernel"] = version("liger-kernel")
    harness.serve(Cases(asked), warm=lambda: None, versions=versions)


class Cases(dict[str, Callable[[], Any]]):
    """The runs of a worker, by what is asked as JSON; only the last one is kept."""

    def __init__(self, asked: Any) -> None:
        super().__init__({"": lambda: None})
        self.asked, self.last = asked, ""

    def __missing__(self, case: str) -> Callable[[], Any]:
        self.pop(self.last, None)
        self.last, spec = case, json.loads(case)
        if spec["op"] == "step":
            self[case] = measured(training_step(self.asked), self.asked.device, 1)
        elif (made := operation(self.asked.side, self.asked.device, spec["op"], spec["sizes"])) is None:
            self[case] = lambda: {"cannot": "it has no such kernel"}
        else:
            self[case] = measured(made, self.asked.device, CALLS)
        return self[case]


def measured(step: Callable[[], Any], device: str, calls: int) -> Callable[[], dict[str, Any]]:
    """Returns a run of so many calls, which tells the most memory that one held."""

    def run() -> dict[str, Any]:
        for _ in range(calls):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
        return {"peak_bytes": peak}

    peak = 0
    run()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        peak = torch.cuda.max_memory_allocated()
    return run


def operation(side: str, device: str, op: str, sizes: dict[str, int]) -> Callable[[], Any] | None:
    """Returns one call with its gradient; None where this side has no such kernel."""

    def make(*dims: str) -> torch.Tensor:
        shape = [sizes[dim] for dim in dims]
        return torch.randn(shape, dtype=torch.bfloat16, device=device, requires_grad=True)

    targets = torch.arange(sizes.get("N", 0), device=device) % sizes.get("V", 1)
    functions = (liger if side == "liger" else plain)(sizes, targets, device)
    arrays = {
        "rms_norm": lambda: (make("N", "D"), make("D")),
        "add_rms_norm": lambda: (make("N", "D"), make("N", "D"), make("D")),
        "layer_norm": lambda: (make("N", "D"), make("D"), make("D")),
        "swiglu": lambda: (make("N", "F"), make("N", "F")),
        "geglu": lambda: (make("N", "F"), make("N", "F")),
        # Heads before positions, as transformers has them.
        "rope": lambda: (make("B", "H", "T", "C"), make("B", "K", "T", "C")),
        "cross_entropy": lambda: (make("N", "V"),),
        "linear_cross_entropy": lambda: (make("N", "D"), make("V", "D")),
        "attend": lambda: (make("B", "H", "T", "C"), make("B", "K", "T", "C"), make("B", "K", "T", "C")),
    }[op]()
    if op not in functions:
        return None

    def step() -> None:
        for x in arrays:
            x.grad = None
        out = functions[op](*arrays)
        out = out if isinstance(out, tuple) else (out,)
        torch.autograd.backward(out, [torch.ones_like(x) for x in out])

    return step


def angles(sizes: dict[str, int], device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns cosines and sines as transformers makes them: each angle twice."""
    half = torch.randn(1, sizes["T"], sizes["C"] // 2, device=device)
    both = torch.cat((half, half), -1)
    return both.cos().bfloat16(), both.sin().bfloat16()


def plain(sizes: dict[str, int], targets: torch.Tensor, device: str) -> dict[str, Callable[..., Any]]:
    """Returns torch's own forms, eager."""

    def normed(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        return scale * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPSILON)).to(x.dtype)

    def rope(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = turn

        def turned(x: torch.Tensor) -> torch.Tensor:
            a, b = x.chunk(2, -1)
            return x * cos[:, None] + torch.cat((-b, a), -1) * sin[:, None]

        return turned(q), turned(k)

    turn = angles(sizes, device) if "C" in sizes else ()
    return {
        "rms_norm": normed,
        "add_rms_norm": lambda x, r, w: (normed(x + r, w), x + r),
        "layer_norm": lambda x, w, b: functional.layer_norm(x, x.shape[-1:], w, b, EPSILON),
        "swiglu": lambda a, b: functional.silu(a) * b,
        "geglu": lambda a, b: functional.gelu(a, approximate="tanh") * b,
        "rope": rope,
        "cross_entropy": lambda logits: functional.cross_entropy(logits.float(), targets, reduction="sum"),
        "linear_cross_entropy": lambda x, w: functional.cross_entropy((x @ w.T).float(), targets, reduction="sum"),
        "attend": lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),
    }


def liger(sizes: dict[str, int], targets: torch.Tensor, device: str) -> dict[str, Callable[..., Any]]:
    """Returns Liger's kernels; it has no attention."""
    from liger_kernel.transformers import functional as kernels

    turn = angles(sizes, device) if "C" in sizes else ()
    return {
        "rms_norm": lambda x, w: kernels.liger_rms_norm(x, w, EPSILON),
        "add_rms_norm": lambda x, r, w: kernels.liger_fused_add_rms_norm(x, r, w, EPSILON),
        "layer_norm": lambda x, w, b: kernels.liger_layer_norm(x, w, b, EPSILON),
        "swiglu": kernels.liger_swiglu,
        "geglu": kernels.liger_geglu,
        "rope": lambda q, k: kernels.liger_rope(q, k, *turn),
        "cross_entropy": lambda logits: kernels.liger_cross_entropy(logits, targets, reduction="sum"),
        "linear_cross_entropy": lambda x, w: kernels.liger_fused_linear_cross_entropy(x, w, targets, reduction="sum"),
    }


def training_step(asked: Any) -> Callable[[], float]:
    """Returns a function that takes one training step and waits for its loss."""
    import transformers

    if asked.side == "liger":
        from liger_kernel.transformers import apply_liger_kernel_to_llama

        apply_liger_kernel_to_llama()
    torch.manual_seed(0)
    shape = asked.model
    config = transformers.LlamaConfig(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["width"],
        intermediate_size=shape["hidden"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["key_heads"],
        max_position_embeddings=shape["length"],
        tie_word_embeddings=True,
        use_cache=False,
        attn_implementation="sdpa",
    )
    model = transformers.LlamaForCausalLM(config).to(asked.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = torch.randint(0, shape["vocabulary"], (shape["batch"], shape["length"]), device=asked.device)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(asked.device, dtype=torch.bfloat16):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


if __name__ == "__main__":
    main()

"""A peer of bench/serve_gpu.py: transformers' continuous batching on torch in bf16.

Run by the Python of .venv-serve_gpu. One manager lives from the first run to the last, as in a server; how many
tokens it computes at once, whether it captures CUDA graphs and whether it overlaps host and device is its own
choice. Not here: what is compared and how (`bench/serve_gpu.py`).
"""

import functools
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import harness

PAGE_TOKENS = 256
"""Its own default."""
SHARE_OF_FREE = 0.8
"""Which part of the card's free memory it may plan with; the pages and its batches take less."""


def main() -> None:
    """Loads the folder and serves the cases of a job."""
    job = json.loads(Path(sys.argv[1]).read_text())
    if job["device"] == "cuda" and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} sees no GPU: its driver or its CUDA differ from those of JAX")
    torch.set_grad_enabled(False)
    attention = best_attention()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        job["folder"], dtype=torch.bfloat16, attn_implementation=attention
    )
    model.to(job["device"]).eval()
    settings = transformers.GenerationConfig(do_sample=False, eos_token_id=-1)  # Every text goes on to its limit.
    batching = transformers.ContinuousBatchingConfig(
        page_size=PAGE_TOKENS,
        num_blocks=job["cache_bytes"] // (PAGE_TOKENS * job["token_bytes"]),
        max_batch_tokens=job["batch_tokens"],
        max_requests_per_batch=job["streams"],
        max_memory_percent=SHARE_OF_FREE,
        allow_block_sharing=False,
        auto_switch_to_flash=False,  # It was chosen above.
    )
    with model.continuous_batching_context_manager(
        generation_config=settings, continuous_batching_config=batching
    ) as manager:
        work = {name: functools.partial(generate, manager, **case) for name, case in job["cases"].items()}
        for run in work.values():
            run()  # The first run of a shape prepares it.
        versions = {"torch": torch.__version__, "transformers": transformers.__version__, "attention": attention}
        harness.serve(
            work,
            warm=functools.partial(generate, manager, **job["warm"]),
            versions=versions | {"peer python": platform.python_version()},
        )


def best_attention() -> str:
    """Returns the fastest attention that is installed here, in the manager's own order."""
    for name, is_available in (
        ("flash_attention_3", is_flash_attn_3_available),
        ("flash_attention_2", is_flash_attn_2_available),
    ):
        if torch.cuda.is_available() and is_available():
            return name
    return "sdpa"


def generate(manager: Any, prompts: list[list[int]], new_tokens: int) -> None:
    """Continues prompts by exactly so many tokens."""
    waited = set(manager.add_requests(prompts, max_new_tokens=new_tokens))
    while waited:
        result = manager.get_result(timeout=1)
        if result is None:
            if not manager.is_running():
                raise RuntimeError("the manager has ended")
            continue
        if result.error or len(result.generated_tokens) != new_tokens:
            raise RuntimeError(f"a stream ended with {len(result.generated_tokens)} tokens: {result.error}")
        waited.remove(result.request_id)


if __name__ == "__main__":
    main()

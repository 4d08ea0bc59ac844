"""A peer of bench/serve_cpu.py: transformers' `generate` on torch in bf16, a batch of all streams at once.

Run by the Python of .venv-serve_cpu. The weights are those of the GGUF file, written out in full. Not
here: what is compared and how (`bench/serve_cpu.py`).
"""

import functools
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import harness


def main() -> None:
    """Loads the folder and serves the cases of a job."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    torch.set_grad_enabled(False)
    model = transformers.AutoModelForCausalLM.from_pretrained(job["folder"], dtype=torch.bfloat16).eval()
    model.generation_config.eos_token_id = None  # Every text goes on to its limit.
    work = {name: functools.partial(generate, model, **case) for name, case in job["cases"].items()}
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    for run in work.values():
        run()  # The first run of a shape prepares it.
    harness.serve(
        work,
        warm=functools.partial(generate, model, **job["warm"]),
        versions=versions | {"peer python": platform.python_version()},
    )


def generate(model: Any, prompts: list[list[int]], new_tokens: int) -> None:
    """Continues prompts of one length by exactly so many tokens."""
    ids = torch.tensor(prompts)
    mask = torch.ones_like(ids)
    made = model.generate(ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False)
    if made.shape != (len(prompts), len(prompts[0]) + new_tokens):
        raise RuntimeError(f"transformers made {tuple(made.shape)}")


if __name__ == "__main__":
    main()

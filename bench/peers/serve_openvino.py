"""A peer of bench/serve_cpu.py: OpenVINO GenAI's continuous batching, which reads the GGUF file itself.

Run by the Python of .venv-serve_cpu. Its prefix cache is off. Not here: what is compared and how
(`bench/serve_cpu.py`).
"""

import functools
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import harness


def main() -> None:
    """Loads the file and serves the cases of a job."""
    job = json.loads(Path(sys.argv[1]).read_text())
    settings = openvino_genai.SchedulerConfig()
    settings.cache_size = 2
    settings.enable_prefix_caching = False
    settings.max_num_seqs = 32
    settings.max_num_batched_tokens = 2048
    threads = {"INFERENCE_NUM_THREADS": job["threads"]}
    pipeline = openvino_genai.ContinuousBatchingPipeline(job["gguf"], settings, "CPU", threads)
    work = {name: functools.partial(generate, pipeline, **case) for name, case in job["cases"].items()}
    for run in work.values():
        run()  # The first run of a shape prepares it.
    harness.serve(
        work,
        warm=functools.partial(generate, pipeline, **job["warm"]),
        drawn=draw(pipeline, **job["drawn"]),
        versions={"openvino-genai": openvino_genai.__version__, "peer python": platform.python_version()},
    )


def generate(pipeline: Any, prompts: list[list[int]], new_tokens: int) -> None:
    """Continues prompts by exactly so many tokens."""
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos, config.do_sample = new_tokens, True, False
    ids = [openvino.Tensor(np.asarray([prompt], np.int64)) for prompt in prompts]
    answers = pipeline.generate(ids, [config] * len(ids))
    counts = [len(answer.m_generation_ids[0]) for answer in answers]
    if counts != [new_tokens] * len(prompts):
        raise RuntimeError(f"OpenVINO made {counts} tokens")


def draw(pipeline: Any, prompts: list[list[int]], new_tokens: int) -> list[tuple[list[int], list[float]]]:
    """Returns what follows each prompt, and the log-probabilities that the pipeline gives it."""
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos, config.do_sample, config.logprobs = new_tokens, True, False, 1
    answers = []
    for number, prompt in enumerate(prompts):
        handle = pipeline.add_request(number, openvino.Tensor(np.asarray([prompt], np.int64)), config)
        while pipeline.has_non_finished_requests():
            pipeline.step()
        (output,) = handle.read_all()
        answers.append((list(output.generated_ids), list(output.generated_log_probs)))
    return answers


if __name__ == "__main__":
    main()

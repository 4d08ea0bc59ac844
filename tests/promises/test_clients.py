"""Clients of others, and many at once, against a real engine."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import openai
import pytest

from cupola.interop.template import ChatTemplate
from cupola.serve.generator import Served
from cupola.serve.http.app import make_app
from cupola.serve.http.server import Address, Server

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / ".venv-lm_eval" / "bin" / "lm_eval"
TEMPLATE = ChatTemplate("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ")


@pytest.fixture
def url(engine, language):
    """The small model behind HTTP."""
    made = engine()
    served = Served(name="small", engine=made, tokenizer=language.tokenizer, max_length=256, template=TEMPLATE)
    address = Address(port=0)
    server, listening = Server(make_app([served], hosts=address.hosts), address), address.listen()
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.stop()
    thread.join()


def test_the_openai_client_on_every_endpoint(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    said = [{"role": "user", "content": "the furnace"}]
    whole = client.chat.completions.create(model="small", messages=said, max_tokens=8, temperature=0)
    chunks = list(
        client.chat.completions.create(model="small", messages=said, max_tokens=8, temperature=0, stream=True)
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks].count(None) == len(chunks) - 1
    completed = client.completions.create(model="small", prompt="iron", max_tokens=4, logprobs=2, n=2, seed=1)
    assert len(completed.choices) == 2
    answered = client.responses.create(model="small", input="iron", max_output_tokens=4)
    assert answered.status in ("completed", "incomplete")
    assert client.responses.retrieve(answered.id).output_text == answered.output_text
    vector = client.embeddings.create(model="small", input=["iron", "bell"])
    assert abs(sum(x * x for x in vector.data[0].embedding) - 1) < 1e-4
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    told = client.chat.completions.create(
        model="small",
        messages=said,
        max_tokens=60,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    assert isinstance(json.loads(told.choices[0].message.content)["ok"], bool)


def test_health_answers_within_50_ms_while_the_engine_is_busy(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    busy = threading.Thread(
        target=lambda: client.completions.create(model="small", prompt=["iron"] * 16, max_tokens=200, n=2)
    )
    busy.start()
    took = []
    http = openai.DefaultHttpxClient()
    while busy.is_alive():
        begun = time.perf_counter()
        assert http.get(f"{url}/health").status_code == 200
        took.append(time.perf_counter() - begun)
        time.sleep(0.02)
    http.close()
    assert sorted(took)[len(took) // 2] < 0.05


@pytest.mark.slow
@pytest.mark.skipif(not HARNESS.exists(), reason="lm-eval is not installed apart: bench/setup lm_eval")
def test_the_evaluation_harness_runs(url, tmp_path):
    rows = [{"question": f"iron {number}", "answer": "x"} for number in range(4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "small_task.yaml").write_text(
        f"""task: small_task
dataset_path: json
dataset_kwargs:
  data_files:
    test: {tmp_path / "rows.jsonl"}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  max_gen_toks: 8
  until: ["\\n"]
metric_list:
  - metric: exact_match
"""
    )
    command = [
        *(
            str(HARNESS),
            "run",
            "--model",
            "local-completions",
            "--tasks",
            "small_task",
            "--include_path",
            str(tmp_path),
        ),
        *("--model_args", f"model=small,base_url={url}/v1/completions,tokenizer_backend=None,tokenized_requests=False"),
        *("--output_path", str(tmp_path / "out")),
    ]
    offline = {"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, env=offline, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "exact_match" in done.stdout


@pytest.mark.slow
def test_random_clients_leave_nothing_behind():
    command = [sys.executable, str(ROOT / "bench" / "serve_soak.py"), "--minutes", "0.5", "--keep-nothing"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["passed"]

import threading
import time

import pytest

from cupola.serve.errors import Forbidden
from cupola.serve.http.guard import Open


def test_health_answers_at_once_under_load(server, engine, until):
    engine.seconds_per_token = 0.03
    ask = {"model": "bell", "prompt": ["x"] * 32, "max_tokens": 50}
    threads = [threading.Thread(target=server.post, args=("/v1/completions", ask)) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: len(engine.live) == 64)
    seconds = []
    for _ in range(15):
        began = time.monotonic()
        assert server.http.get("/health").json() == {"status": "ok"}
        seconds.append(time.monotonic() - began)
    for thread in threads:
        thread.join()
    assert sorted(seconds)[7] < 0.05


def test_a_failed_engine(server, engine):
    engine.failure = RuntimeError("out of fuel")
    response = server.http.get("/health")
    assert (response.status_code, response.json()) == (503, {"status": "failed"})


def test_metrics(server, engine):
    engine.seconds_per_token = 0.001
    server.post("/v1/completions", {"model": "bell", "prompt": "x"})
    server.http.get("/nosuch")
    text = server.http.get("/metrics").text
    assert 'cupola_engine_completion_tokens_total{model="bell"} 7.0' in text
    assert 'cupola_engine_finished_total{model="bell",reason="stop"} 3.0' in text
    assert 'cupola_engine_running{model="bell"} 0.0' in text
    assert 'cupola_time_to_first_token_seconds_count{model="bell"}' in text
    assert 'cupola_time_per_output_token_seconds_count{model="bell"}' in text
    assert 'cupola_http_requests_total{method="POST",route="/v1/completions",status="200"}' in text
    assert 'route="none",status="404"' in text
    assert "/nosuch" not in text


def test_an_engine_that_does_not_answer_costs_only_its_lines(server, engine, monkeypatch):
    monkeypatch.setattr(engine, "stats", lambda: 1 / 0)
    response = server.http.get("/metrics")
    assert response.status_code == 200
    assert "cupola_http_requests_total" in response.text


class Blind(Open):
    async def check(self, caller, action, object):
        raise Forbidden(f"no {action.value} of {object}")


@pytest.mark.parametrize("path", ["/metrics"])
def test_metrics_are_not_for_everyone(run, path):
    response = run(guard=Blind()).http.get(path)
    assert (response.status_code, "observe of server:http" in response.text) == (403, True)

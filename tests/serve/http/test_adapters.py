import dataclasses

import numpy as np
import pytest

from cupola.interop.peft import write_adapter
from cupola.serve.engine import Engine
from cupola.serve.errors import Forbidden
from cupola.serve.generator import Generator, Served
from cupola.serve.http.adapters import WithAdapters
from cupola.serve.http.guard import Action, Open
from cupola.serve.http.models import Adaptable
from cupola.serve.options import WarmUp

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
ASK = {"prompt": "the furnace melts iron and", "max_tokens": 12, "temperature": 0}


class Visitors(Open):
    """Lets nobody manage."""

    async def check(self, caller, action, object):
        if action is Action.MANAGE:
            raise Forbidden("you may not manage this")


@pytest.fixture(scope="module")
def real(language, small):
    options = small.replace("adapters", 2).replace("adapter_rank", 4).replace("warm_up", WarmUp.ESSENTIAL)
    with Engine(*language, options) as engine:
        yield engine


@pytest.fixture(scope="module")
def factors():
    random = np.random.default_rng(0)
    pairs = [(random.normal(size=(32, 4)), random.normal(size=(4, 32))) for _ in range(2)]
    return {
        f"{layer}.attention.query": (a.astype(np.float32), b.astype(np.float32)) for layer, (a, b) in enumerate(pairs)
    }


@pytest.fixture
def folder(tmp_path, language, factors):
    """A folder of adapters, beside another that nobody may read."""
    for place in ("adapters/poet", "elsewhere/poet"):
        write_adapter(tmp_path / place, factors, language.model)
    return tmp_path / "adapters"


@pytest.fixture
def start(run, real, language):
    def start(folder, **how):
        engine = WithAdapters(real, folder)
        return run(Served("bell", engine, language.tokenizer, 256, created=1), **how)

    return start


def test_is_what_the_routes_need(real):
    assert isinstance(WithAdapters(real, None), Generator)
    assert isinstance(WithAdapters(real, None), Adaptable)


@pytest.mark.parametrize("path", ["poet", "./poet", "whole path"])
def test_a_loaded_adapter_is_a_model_of_its_own(path, start, folder, real, factors):
    server = start(folder)
    client = server.client()

    def said(model):
        return client.completions.create(model=model, **ASK).choices[0].text

    base = said("bell")
    path = str(folder / "poet") if path == "whole path" else path
    loaded = server.post(LOAD, {"lora_name": "poet", "lora_path": path})
    assert (loaded.status_code, loaded.json()["parent"]) == (200, "bell")
    assert [(model.id, model.parent) for model in client.models.list()] == [("bell", None), ("poet", "bell")]
    poet = said("poet")
    real.load_adapter("by hand", factors)
    models = server.service.models
    models["hand"] = dataclasses.replace(models["bell"], name="hand", adapter="by hand")
    assert poet == said("hand") != base == said("bell")
    real.unload_adapter("by hand")
    assert server.post(UNLOAD, {"lora_name": "poet"}).status_code == 200
    assert [model.id for model in client.models.list()] == ["bell", "hand"]


@pytest.mark.parametrize(
    "path",
    ["../elsewhere/poet", "poet/../../elsewhere/poet", "whole path", "link", "link/poet", "\x00", "/", "x" * 5000],
)
def test_nothing_else_is_read(path, start, folder):
    elsewhere = folder.parent / "elsewhere"
    (folder / "link").symlink_to(elsewhere / "poet" if path == "link" else elsewhere)
    path = str(elsewhere / "poet") if path == "whole path" else path
    server = start(folder)
    refused = server.post(LOAD, {"lora_name": "poet", "lora_path": path})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "lora_path")
    assert "poet" not in server.service.models


def test_without_a_folder_nothing_is_read(start, folder):
    refused = start(None).post(LOAD, {"lora_name": "poet", "lora_path": str(folder / "poet")})
    assert refused.status_code == 400
    assert "--adapter-folder" in refused.json()["error"]["message"]


def test_what_is_no_adapter_is_told(start, folder):
    server = start(folder)
    (folder / "empty").mkdir()
    for path, told in (("empty", "adapter_config.json"), ("poem", "Did you mean 'poet'?")):
        refused = server.post(LOAD, {"lora_name": "poet", "lora_path": path})
        assert refused.status_code == 400
        assert told in refused.json()["error"]["message"]


def test_who_may_not_manage_loads_none(start, folder):
    server = start(folder, guard=Visitors())
    assert server.post(LOAD, {"lora_name": "poet", "lora_path": "poet"}).status_code == 403
    assert server.post(UNLOAD, {"lora_name": "bell"}).status_code == 403

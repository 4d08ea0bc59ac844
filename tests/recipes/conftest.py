"""A real engine of a tiny random model behind HTTP, guarded by a permission graph in a file."""

import contextlib
import threading

import httpx2
import numpy as np
import openai
import pytest

from cupola.access import Graph, delete, touch
from cupola.interop.peft import write_adapter
from cupola.recipes.guard import open_guard
from cupola.serve.engine import Engine
from cupola.serve.generator import Served
from cupola.serve.http.adapters import WithAdapters
from cupola.serve.http.app import make_app
from cupola.serve.http.keys import Role, make_key
from cupola.serve.http.server import Address, Server
from cupola.serve.options import WarmUp

PROMPT = "the furnace melts iron and the bell is cast " * 3


class Lab:
    """A guarded server and the graph that guards it, as somebody else has it open."""

    def __init__(self, folder, make_served):
        self.folder, self.keys = folder, {}
        self.address, self.file = str(folder / "access.db"), folder / "keys.json"
        self.told = []
        self._served = make_served
        self._clients = {}

    def key(self, name, subject=None, **more):
        self.keys[name] = make_key(self.file, name, subject=f"user:{name}" if subject is None else subject, **more)

    def start(self):
        self.guard = open_guard(self.address, self.file, say=self.told.append)
        self.graph = Graph.open(self.address)
        address = Address(port=0)
        self.app = make_app(self._served(self.folder), guard=self.guard, hosts=address.hosts)
        self.server, listening = Server(self.app, address), address.listen()
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listening]}, daemon=True)
        self._thread.start()

    def allow(self, *relationships):
        self.graph.write(*map(touch, relationships))

    def revoke(self, *relationships):
        self.graph.write(*map(delete, relationships))

    def http(self, name) -> httpx2.Client:
        if name not in self._clients:
            sent = {"authorization": f"Bearer {self.keys[name]}"} if name else {}
            self._clients[name] = httpx2.Client(base_url=self.url, headers=sent, timeout=60, trust_env=False)
        return self._clients[name]

    def client(self, name) -> openai.OpenAI:
        key = self.keys.get(name, "sk-unknown")
        plain = self._clients.setdefault(("openai", name), httpx2.Client(trust_env=False))
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, http_client=plain)

    def models(self, name) -> list[str]:
        return [model.id for model in self.client(name).models.list()]

    def cached(self, name, prompt=PROMPT, model="bell") -> int:
        """Tokens of a prompt that were in the cache already."""
        told = self.client(name).completions.create(model=model, prompt=prompt, max_tokens=2, temperature=0)
        return told.usage.prompt_tokens_details.cached_tokens

    def close(self):
        for client in self._clients.values():
            client.close()
        self.server.stop()
        self._thread.join(30)
        self.guard.close()
        self.graph.close()


@pytest.fixture(scope="session")
def bell(language, small):
    """The engine of all."""
    options = small.replace("adapters", 2).replace("adapter_rank", 4).replace("warm_up", WarmUp.ESSENTIAL)
    with Engine(*language, options) as engine:
        yield engine


@pytest.fixture
def prepared(tmp_path, language, bell):
    """A lab whose server does not run yet: models bell and gong, and an adapter poet to be loaded."""
    random = np.random.default_rng(0)
    pair = tuple(random.normal(size=shape).astype(np.float32) for shape in ((32, 4), (4, 32)))
    write_adapter(tmp_path / "adapters" / "poet", {"0.attention.query": pair}, language.model)

    def served(folder):
        engine = WithAdapters(bell, folder / "adapters")
        return [Served(name, engine, language.tokenizer, 256, created=1) for name in ("bell", "gong", "v1.5")]

    return Lab(tmp_path, served)


@pytest.fixture
def lab(prepared):
    """The lab with ann, bob and eve, an operator, and rights to nothing."""
    for name in ("ann", "bob", "eve"):
        prepared.key(name)
    prepared.key("ops", "service_account:ops", role=Role.OPERATOR)
    prepared.start()
    with contextlib.closing(prepared):
        yield prepared
        for name in [name for name, one in prepared.app.state.service.models.items() if one.adapter]:
            prepared.app.state.service.models[name].engine.unload_adapter(name)

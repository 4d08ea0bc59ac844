"""The hostile session: warnings are errors, rank promotion raises, shapes are checked, 8 devices."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

from cupola.core.dtype import FLOAT32
from cupola.core.module import Tree
from cupola.data.mixture import Mixture, Part
from cupola.data.sources import TextFiles
from cupola.data.tokenizer import Tokenizer
from cupola.layers.attention import Attention
from cupola.layers.block import Block
from cupola.layers.dropout import Dropout
from cupola.layers.feed_forward import GatedMLP
from cupola.layers.position import Rope
from cupola.layers.repeat import Repeat
from cupola.models.decoder import Decoder
from cupola.optim.learner import Learner
from cupola.optim.optimizer import AdamW
from cupola.serve.engine import Engine
from cupola.serve.options import Options
from cupola.train.experiment import Data, Evaluation, Experiment, Saving, Steps

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
# A shell that starts the tests in the background has them ignore Ctrl-C, and all processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def what_was_compiled_goes() -> Iterator[None]:
    """A process that kept the thousands of programs of all tests would take 7 GB, and has been seen to crash in XLA."""
    yield
    jax.clear_caches()


@pytest.fixture
def key():
    return jax.random.key(0)


TEXT = "the furnace melts iron and pours it into a mould where it cools to a bell or a gate"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """A folder of forty small texts, always the same."""
    folder = tmp_path_factory.mktemp("corpus")
    words = TEXT.split()
    for number in range(40):
        chosen = [words[(number * 7 + i * i + i * number) % len(words)] for i in range(60 + 3 * number)]
        (folder / f"text-{number:02}.txt").write_text(" ".join(chosen) + ".\n")
    return folder


@pytest.fixture(scope="session")
def experiment(corpus) -> Callable[..., Experiment]:
    """Makes a tiny experiment that trains in a second; changes are given as path=value pairs."""

    def make(**changes) -> Experiment:
        block = Block(
            attention=Attention(heads=4, key_heads=2), feed_forward=GatedMLP(hidden=24), dropout=Dropout(rate=0.1)
        )
        made = Experiment(
            name="tiny",
            model=Decoder(vocabulary=280, width=16, max_length=64, stack=Repeat(layers=2, block=block)),
            data=Data(
                mixture=Mixture(parts=(Part(source=TextFiles(path=str(corpus))),)),
                held_out=0.2,
                batch=4,
                length_tokens=32,
            ),
            learner=Learner(optimizer=AdamW(rate=1e-2)),
            budget=Steps(steps=12),
            precision=FLOAT32,
            evaluation=Evaluation(times=1, rows=4, batch=4),
            saving=Saving(every_steps=4),
        )
        for path, value in changes.items():
            made = made.replace(path.replace("__", "."), value)
        return made

    return make


class Language(NamedTuple):
    """A small language model with random weights, large enough that what it says depends on all it has read."""

    model: Decoder
    params: Tree
    tokenizer: Tokenizer


@pytest.fixture(scope="session")
def language() -> Language:
    tokenizer = Tokenizer.train([TEXT * 3, '{"name": "bell", "age": 12, "ok": true}' * 3], vocabulary=300)
    block = Block(attention=Attention(heads=4, key_heads=2, rope=Rope(base=100.0)), feed_forward=GatedMLP(hidden=48))
    model = Decoder(
        vocabulary=tokenizer.vocabulary,
        width=32,
        max_length=256,
        stack=Repeat(layers=2, block=block),
        precision=FLOAT32,
    )
    # Wide logits: random models are otherwise near-ties everywhere.
    params = jax.tree.map(lambda x: 2.5 * x if x.ndim > 1 else x, model.init(jax.random.key(1)))
    return Language(model, params, tokenizer)


@pytest.fixture(scope="session")
def small() -> Options:
    """Options of an engine that compiles in seconds."""
    return Options(max_running=8, page_size=4, budget_tokens=32, memory_bytes=2**20)


@pytest.fixture
def engine(language, small) -> Iterator[Callable[..., Engine]]:
    """Starts engines of the small model, with changes to its options, and closes them."""
    made: list[Engine] = []

    def make(**changes) -> Engine:
        options = small
        for name, value in changes.items():
            options = options.replace(name, value)
        made.append(Engine(*language, options))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.close()


class Postgres:
    """A PostgreSQL server that is ours alone, and runs while it is a context."""

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found or importlib.util.find_spec("psycopg") is None:
            pytest.skip("needs Debian's package postgresql" if not found else "needs psycopg")
        # The server refuses to run as root.
        self._account = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        self._become = ["runuser", "-u", self._account, "--"] if os.getuid() == 0 else []
        self._initdb = found[-1]
        self._folder = Path(tempfile.mkdtemp(prefix="access-"))  # A socket's path must be short.
        self.address = f"postgresql://{self._account}@/postgres?host={self._folder}"

    def __enter__(self) -> "Postgres":
        try:
            shutil.chown(self._folder, self._account)
            data = self._folder / "data"
            self._run(self._initdb, "-D", data, "-U", self._account, "-A", "trust", "-E", "UTF8", "--no-sync")
            self.start()
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self._folder)

    def start(self) -> None:
        """Starts it, and returns when it answers."""
        options = f"-c listen_addresses='' -c unix_socket_directories='{self._folder}' -c fsync=off"
        self._control("-l", self._folder / "log", "-o", options, "start")

    def stop(self) -> None:
        """Ends it as a crash does."""
        self._control("-m", "immediate", "stop")

    def _control(self, *words) -> None:
        self._run(self._initdb.parent / "pg_ctl", "-D", self._folder / "data", "-w", *words)

    def _run(self, *command) -> None:
        told = subprocess.run(
            [*self._become, *command], cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if told.returncode:
            pytest.fail(f"{command}: {told.stderr}")


@pytest.fixture(scope="session")
def postgres_address() -> Iterator[str]:
    """A database of a PostgreSQL server; tests take a tenant each."""
    with Postgres() as server:
        yield server.address


@pytest.fixture
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL server that a test may stop and start."""
    with Postgres() as server:
        yield server

"""Places on disk: what processes share, and what the dead leave behind."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from cupola.checkpoint import place
from cupola.checkpoint.store import Checkpoints

PROGRAM = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
folder, port, me = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.distributed.initialize(f"localhost:{port}", 2, me)
from jax.experimental.multihost_utils import sync_global_devices
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from cupola.checkpoint.retain import Retention
from cupola.checkpoint.store import Checkpoints
from cupola.core.errors import CheckpointError

mesh = Mesh(np.array(jax.devices()), ("x",))
split, whole = NamedSharding(mesh, PartitionSpec("x")), NamedSharding(mesh, PartitionSpec())
numbers = np.arange(32, dtype=np.float32).reshape(8, 4)
state = {"w": jax.make_array_from_callback((8, 4), split, lambda index: numbers[index]), "n": 5}
like = {"w": jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=whole), "n": 0}
with Checkpoints(folder, retention=Retention(last=2)) as checkpoints:
    for step in (1, 2, 3):
        checkpoints.save(step, state, extra={"step": step})
    back, extra, _ = checkpoints.restore(like)
    same = np.array_equal(back["w"].addressable_shards[0].data, numbers) and back["n"] == 5
    sync_global_devices("restored")
    if me == 0:
        with open(f"{folder}/step-00000003/extra.json", "a") as file:
            file.write(" ")
    sync_global_devices("spoilt")
    try:
        checkpoints.restore(like)
    except CheckpointError as error:
        print(json.dumps([checkpoints.steps(), extra, bool(same), error.remedy]), flush=True)
"""


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def test_two_processes_share_a_checkpoint(tmp_path, port):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(port)]
    both = [subprocess.Popen([*command, str(me)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for me in (0, 1)]
    try:
        said = [process.communicate(timeout=60) for process in both]
    finally:
        for process in both:
            process.kill()
            process.communicate()
    assert [process.returncode for process in both] == [0, 0], said
    for out, _ in said:
        steps, extra, same, remedy = json.loads(out.splitlines()[-1])
        assert (steps, extra, same) == ([2, 3], {"step": 3}, True)
        assert "Step 2 is whole" in remedy
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    assert list((tmp_path / "step-00000003").rglob("ocdbt.process_1/d/*")), "process 1 wrote its shards itself"


def test_only_folders_of_the_dead_are_removed(tmp_path):
    mine = place.owner()
    host, pid, born = mine.split("-")
    alive = tmp_path / f".writing-step-00000001-{mine}"
    reused = tmp_path / f".writing-step-00000002-{host}-{pid}-{int(born) - 1000}"
    dead = tmp_path / f".deleting-step-00000003-{host}-{2**22 + 1}-{born}"
    elsewhere = tmp_path / f".writing-step-00000004-00000000-1-{born}"
    abandoned = tmp_path / f".writing-step-00000005-00000000-1-{born}"
    unknown = tmp_path / ".notes"
    for folder in (alive, reused, dead, elsewhere, abandoned, unknown):
        folder.mkdir()
    long_ago = time.time() - 2 * place.ABANDONED_SECONDS
    os.utime(abandoned, (long_ago, long_ago))
    Checkpoints(tmp_path).close()
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in (alive, elsewhere, unknown)}

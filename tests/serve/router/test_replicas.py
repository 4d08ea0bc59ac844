import asyncio
import os
import signal
import subprocess
import sys
import time

import httpx2
import pytest

from cupola.core.errors import ConfigError
from cupola.serve.router.replicas import Care, Replica, ReplicaError, run_replicas


def pid_of(url):
    return httpx2.get(f"{url}/told").json()["pid"]


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "Z"


def wait_for(what, seconds=10):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_that_dies_is_started_again_and_all_end(command, care):
    async def main():
        async with run_replicas(command, 2, care=care) as urls:
            before = [pid_of(url) for url in urls]
            os.kill(before[0], signal.SIGKILL)
            async with asyncio.timeout(15):
                while True:
                    await asyncio.sleep(0.1)
                    try:
                        after = pid_of(urls[0])
                        break
                    except httpx2.TransportError:
                        pass
            assert after != before[0]
            return [after, before[1]]

    for pid in asyncio.run(main()):
        wait_for(lambda pid=pid: gone(pid))


def test_none_outlives_a_starter_that_is_killed(command, tmp_path):
    code = (
        "import sys, time\n"
        "from cupola.serve.router.replicas import Replica, Care\n"
        "r = Replica(sys.argv[1:], care=Care(grace_seconds=1.0)); r.start(); r.wait_ready()\n"
        "print(r.url, flush=True); time.sleep(60)\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True)
    with starter:
        pid = pid_of(starter.stdout.readline().strip())
        starter.kill()
    wait_for(lambda: gone(pid))


def test_one_that_never_gets_ready_is_an_error(care):
    async def use(command, care):
        async with run_replicas(command, 1, care=care):
            pass

    with pytest.raises(ReplicaError, match="ended with status 3 before it was ready"):
        asyncio.run(use([sys.executable, "-c", "import sys; sys.exit(3) # {port}"], care))
    sleeper = [sys.executable, "-c", "import time; time.sleep(60) # {port}"]
    with pytest.raises(ReplicaError, match=r"not ready after 0\.5 seconds"):
        asyncio.run(use(sleeper, care.replace("ready_seconds", 0.5)))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Replica(["serve"]), "does not say where the port goes"),
        (lambda: Care(ready_seconds=0.0), "ready_seconds"),
        (lambda: Care(grace_seconds=-1.0), "grace_seconds"),
    ],
)
def test_mistakes(make, problem):
    with pytest.raises(ConfigError, match=problem):
        make()

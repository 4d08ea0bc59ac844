"""Runs a command for as long as its own standard input is open: no orphan, however its starter ends.

Run as a script with the seconds of grace and the command; it imports nothing but the standard library, so
that it starts at once.
"""

import os
import signal
import subprocess
import sys
import threading


def main(grace_seconds: float, command: list[str]) -> int:
    """Returns the command's exit status; when the input ends, the command and all it started are ended."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def end(kind: signal.Signals) -> None:
        try:
            os.killpg(process.pid, kind)
        except ProcessLookupError:
            return

    def watch() -> None:
        # Unbuffered: a buffer's lock held by this thread would break the interpreter's end.
        while os.read(0, 4096):
            pass
        end(signal.SIGTERM)
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            end(signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    status = process.wait()
    end(signal.SIGKILL)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))

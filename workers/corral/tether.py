"""Runs a command that never outlives whoever started it: `python tether.py COMMAND...`.

Standard input is a pipe of which only the starter holds the other end. It closes when the starter
closes it and when the starter dies, however it dies; the command is then told to stop. A program of
its own, because a thread of the starter would die with it, and without imports, to start quickly.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

GRACE = 15.0
"""Seconds that the command gets to stop before it is killed."""


def main(command: list[str]) -> int:
    """Run `command` until it ends or standard input closes; its exit status."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        # The starter's lock is inherited: it is held exactly as long as the command lives.
        close_fds=False,
        preexec_fn=_end_with_parent,  # noqa: PLW1509 (no thread runs yet)
    )
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: child.terminate())
    threading.Thread(target=_stop_at_end_of_input, args=(child,), daemon=True).start()
    return child.wait()


def _stop_at_end_of_input(child: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1024):
        pass
    child.terminate()
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        child.kill()


def _end_with_parent() -> None:
    """Should this program be killed too: Linux then ends the command; elsewhere it is left."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

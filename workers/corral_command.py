"""The program `corral`, as it is installed: until all that it needs is imported, Ctrl-C simply ends it.

A module of its own, because importing anything of `corral` takes the time that this is about.
"""

import signal


def main() -> int:
    """Run the command that the process was called with; its exit code."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else it is ignored, and stays so
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from corral.cli import main as run

    signal.signal(signal.SIGINT, before)
    return run()

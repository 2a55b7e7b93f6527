"""The terminal beside the picture: the clipboard (OSC 52), progress in the tab (OSC 9;4), and whether it is there."""

from __future__ import annotations

import base64
import errno
import termios
from collections.abc import Mapping

LIMIT = 74_000
"""Bytes that are copied: what base64 makes of them is what terminals take."""
_PROGRESS = ("WT_SESSION", "ConEmuPID", "GHOSTTY_RESOURCES_DIR", "WEZTERM_PANE")


def copying(text: str, environment: Mapping[str, str]) -> str:
    """The sequence that puts `text` into the clipboard of the terminal, however far away it is.

    Inside tmux and screen it is also wrapped, so that it gets through to the terminal around them.
    """
    data = text.encode(errors="replace")[:LIMIT].decode(errors="ignore").encode()
    sequence = f"\x1b]52;c;{base64.b64encode(data).decode()}\a"
    if environment.get("TMUX"):
        doubled = sequence.replace("\x1b", "\x1b\x1b")
        return f"{sequence}\x1bPtmux;{doubled}\x1b\\"
    if environment.get("TERM", "").startswith("screen"):
        return f"\x1bP{sequence}\x1b\\"
    return sequence


def shows_progress(environment: Mapping[str, str]) -> bool:
    """Whether the terminal is known to show progress: others take the sequence for a notification."""
    if environment.get("TMUX"):
        return False
    return any(environment.get(name) for name in _PROGRESS) or environment.get("TERM_PROGRAM") in ("ghostty", "WezTerm")


def progress(percent: int | None, *, bad: bool = False) -> str:
    """The sequence that shows a share done, red where something went wrong; None: nothing is under way any more."""
    if percent is None:
        return "\x1b]9;4;0;0\a"
    return f"\x1b]9;4;{2 if bad else 1};{max(0, min(100, percent))}\a"


def hung_up(descriptor: int) -> bool:
    """Whether the terminal behind a file descriptor is gone, which a picture that stands still would never find out."""
    try:
        termios.tcgetattr(descriptor)
    except termios.error as error:
        return bool(error.args[0] == errno.EIO)  # what is no terminal gives another one
    return False


class Nowhere:
    """Takes the place of the toolkit's writer when the terminal is gone.

    That one dies, its queue fills up, and whoever writes waits for ever, even on the way out.
    """

    def write(self, text: str) -> None: ...

    def flush(self) -> None: ...

    def stop(self) -> None: ...

    def is_alive(self) -> bool:
        return False

"""What the screens need of a feed. The real one is in `feed`; tests hand in plain values."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from corral.events import Receipt
from corral.leaving import Departure, How
from corral.messages import TaskId
from corral_tui.diagnosis import Diagnosis
from corral_tui.replay import History
from corral_tui.state import State
from corral_tui.story import Story


class Source(Protocol):
    """Fills a state, and carries orders to the server."""

    state: State
    """Read it only while holding `lock`: a feed may fold on a thread of its own."""
    failure: Exception | None
    """Why there is nothing to show and never will be: no server, no permission."""

    read_only: bool
    """Whether this user may change nothing, as far as that is known."""

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Held while the state is changed, and while values are taken from it."""
        ...

    def start(self) -> None:
        """Begin, if that was not done; returns at once."""
        ...

    def stop(self) -> None:
        """End, and wait for that."""
        ...

    def look_at(self, run_id: str | None) -> None:
        """Keep `state.detail` for this run from now on; None: for no run."""
        ...

    async def interrupt(self, run_id: str) -> Receipt | None:
        """Stop a run and wait until it has stopped; None if it had ended before.

        Raises:
            CorralError: it is not known, or it was refused.
        """
        ...

    async def retry(self, run_id: str, tasks: Sequence[str] | None = None) -> int:
        """Bring back what of an ended run failed or was interrupted, or only these tasks; how many that are.

        Raises:
            CorralError: it is not known, or it was refused.
        """
        ...

    async def dismiss(self, how: How, workers: Sequence[str]) -> list[Departure]:
        """Tell workers to leave, and wait until each has confirmed that.

        Raises:
            CorralError: some have not, or it was refused.
        """
        ...

    async def diagnose(self, run_id: str | None) -> Diagnosis:
        """Why nothing moves: of all, or of one run. Takes about a second.

        Raises:
            CorralError: it cannot be looked at.
        """
        ...

    async def story(self, run_id: str, task: TaskId) -> Story:
        """All that is stored about one task.

        Raises:
            CorralError: it cannot be read.
        """
        ...

    async def history(self, run_id: str) -> tuple[History, bool]:
        """The stored events of a run, and whether that is all of them: there is a bound to what is kept.

        Raises:
            CorralError: they cannot be read.
        """
        ...

"""All that is shown of one run at one moment, whether it is now or was last night."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral.ledger import Ledger
from corral_tui.fold import Detail
from corral_tui.pulse import Pulse
from corral_tui.values import AtWork, RunView, ShareView


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The lock of the state is held while one is made and used, unless it is of a replay."""

    run: RunView
    detail: Detail | None
    """What was read of its events; None before the first."""
    ledger: Ledger | None
    pulse: Pulse | None
    shares: list[ShareView]
    now: float
    """By the local clock, in seconds since the epoch."""
    server_now: float
    agrees: bool | None = None
    at_work: Sequence[AtWork] = ()
    """What is executed now, as far as it is known by name; the longest first."""
    served: bool = True
    """Whether any worker serves its topic."""

    @property
    def abreast(self) -> bool:
        """Whether all that is known of the run's events has been read."""
        detail = self.detail
        if detail is None or not detail.caught_up:
            return False
        return self.run.ended or detail.fold.ledger.sequence >= self.run.sequence

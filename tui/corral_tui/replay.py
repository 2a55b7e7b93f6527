"""Time travel: the stored events of a run, folded again up to any moment of its life, by the same fold."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from corral.events import decode_event
from corral.runs import Record
from corral_tui import figures
from corral_tui.fold import Detail
from corral_tui.look import Look
from corral_tui.spans import Line, joined, line
from corral_tui.views import replayed

SPEEDS = (1, 2, 5, 10, 30, 60, 300, 1_800)
"""Seconds of the run's life in a second."""
SLICE = 500
"""Events that are folded without a pause."""
STEPS = 40
"""Steps from one end of its life to the other."""
History = list[tuple[int, float, bytes]]
"""(sequence, time of storing, event as JSON), in the order of the stream."""


class Replay:
    """Where in its life the run is shown. Times are those at which the server stored the events."""

    def __init__(self, record: Record, history: History, *, whole: bool = True) -> None:
        self.record = record
        self.whole = whole
        """All that was stored is here."""
        self._history = history
        # Clocks of servers differ a little after a failover: time never goes back here.
        self._times = list(accumulate((at for _, at, _ in history), max))
        self.detail = self._blank()
        self.position = 0
        """Events that are folded."""
        self.target = 0
        """Events that are to be folded."""
        self.at = self.begins
        self.playing = False
        self.speed = SPEEDS[0]

    @property
    def begins(self) -> float:
        return self._times[0] if self._times else self.record.created_at

    @property
    def ends(self) -> float:
        return self._times[-1] if self._times else self.record.created_at

    @property
    def arrived(self) -> bool:
        """Whether all is folded that is to be."""
        return self.position == self.target

    def _blank(self) -> Detail:
        detail = Detail(self.record.id, self.record.topic)
        detail.caught_up = True
        return detail

    # --- moving ------------------------------------------------------------------------------------

    def seek(self, at: float) -> None:
        """Go to a moment; `work` does what that takes."""
        self.at = max(self.begins, min(at, self.ends))
        self.target = bisect_right(self._times, self.at)

    def step(self, events: int) -> None:
        """Go so many events on, or back, and stop playing."""
        self.playing = False
        self.target = max(0, min(self.target + events, len(self._history)))
        self.at = self._times[self.target - 1] if self.target else self.begins

    def skip(self, steps: int) -> None:
        """Go a part of its whole life on, or back."""
        self.seek(self.at + steps * max(0.001, self.ends - self.begins) / STEPS)

    def play(self) -> None:
        """Begin to play, from the beginning if it is over; or stop."""
        if not self.playing and self.at >= self.ends:
            self.seek(self.begins)
        self.playing = not self.playing

    def faster(self, by: int) -> None:
        """Another speed."""
        index = SPEEDS.index(self.speed) + by
        self.speed = SPEEDS[max(0, min(index, len(SPEEDS) - 1))]

    def passed(self, seconds: float) -> None:
        """So much time has passed for who is watching."""
        if self.playing:
            self.seek(self.at + seconds * self.speed)
            self.playing = self.at < self.ends

    def work(self, events: int = SLICE) -> None:
        """Fold on towards the target; from the beginning if it lies behind."""
        if self.target < self.position:
            self.detail, self.position = self._blank(), 0
        until = min(self.target, self.position + events)
        for sequence, at, event in self._history[self.position : until]:
            self.detail.apply(sequence, at, decode_event(event))
        self.position = until

    # --- what it says ------------------------------------------------------------------------------

    def look(self) -> Look:
        """The run as it stood then. What ran is not stored: it counts as pending."""
        fold = self.detail.fold
        run, shares = replayed(self.record, self.detail, self.at)
        return Look(
            run=run,
            detail=self.detail,
            ledger=fold.ledger,
            pulse=fold.pulse,
            shares=shares,
            now=self.at,
            server_now=self.at,
        )

    def said(self, width: int) -> Line:
        """Where it is, in a line."""
        share = (self.at - self.begins) / max(0.001, self.ends - self.begins)
        room = max(8, min(40, width - 80))
        done = min(room - 1, int(share * room))
        state = ("▶ playing", "running") if self.playing else ("❚❚ paused", "warning")
        if not self.arrived:
            state = ("◌ folding", "warning")
        parts = [
            line(("replay", "title")),
            line(("━" * done, "bar-live"), ("●", "strong"), ("─" * (room - done - 1), "bar-rest")),
            line((figures.clock_ms(self.at), "strong")),
            line((f"event {figures.count(self.position)} of {figures.count(len(self._history))}", "dim")),
            line((f"x{self.speed}", "text")),
            line(state),
            () if self.whole else line(("only its first part: the rest is too much", "warning")),
        ]
        return joined(parts, ("  ", "text"))

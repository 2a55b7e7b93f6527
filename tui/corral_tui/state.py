"""All that the dashboard knows: plain state that the feed folds into, and from which the screens take values.

It holds no connection, no widget and no clock. Memory is bounded: so many records (`kept`), a fold for each that lives,
and for the one run that is looked at the last events and errors in rings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from corral.doctor.facts import WorkerFacts
from corral.events import AnyEvent, Ended
from corral.ledger import Counts, Ledger
from corral.runs import Beat, Record
from corral_tui.crew import Paces
from corral_tui.describe import ended_in
from corral_tui.diagnosis import Diagnosis
from corral_tui.fold import Detail, Fold
from corral_tui.kept import MOST, Kept
from corral_tui.pulse import Pulse, calm
from corral_tui.values import AtWork, Link, RunView, ShareView, Truth, Unlisted, WorkerView
from corral_tui.views import (
    DEATH,
    IDLE,
    Busy,
    at_work,
    busy_with,
    executes,
    run_view,
    shares_of,
    worker_view,
)

FORGET = 60.0
"""Seconds after which a silent worker is no longer shown."""
WORKERS, STRANGERS = 10_000, 10_000
"""Workers, and runs without a record, that are kept at most: anybody may have made them up."""
UNHEARD = 4.0
"""Seconds without a word from the server after which nothing is claimed to be live: it is asked every two seconds."""
FLOWING = 3.0
"""Seconds after the last event for which its lag is of interest."""


class State:
    """The fold of records, events and heartbeats. Of each kind of run `most` are kept."""

    def __init__(self, most: int = MOST) -> None:
        self.link = Link()
        self._kept = Kept(most)
        self.folds: dict[str, Fold] = {}
        self.detail: Detail | None = None
        self.abreast = True
        """Whether what was stored before has been read, so that what comes is new."""
        self.lag = 0.0
        """Seconds from an event's storing to its being folded here, as of the last one, beside the skew."""
        self._lag_at = 0.0
        self.heard_at: float | None = None
        """When anything came from the server last; None where nobody says so."""
        self._gap = (0.0, 0.0)
        """From when to when the server was silent last."""
        self.bookkeeper: str | None = None
        """The pool that keeps the books, as far as known."""
        self.skew = 0.0
        """Seconds by which the server's clock is ahead of ours, as far as seen."""
        self.history_from = 0.0
        """Server time from which on events are folded: runs that are older take their record's counts."""
        self.widest: dict[str, int] = {}
        """The largest counts seen, by state, and the lengths of the longest texts: what columns are sized for."""
        self.paces = Paces()
        self.diagnosis: Diagnosis | None = None
        """The last look at everything, made from time to time."""
        self._ends = Pulse(kept=80)
        """Of all runs together."""
        self._skew_known = False
        self._beats: dict[str, tuple[Beat, float]] = {}
        self._busy_at: float | None = None
        self._busy_with: dict[str, Busy] = {}
        self._strangers: dict[str, None] = {}
        """Runs that have events and no record, oldest first."""

    # --- what comes in -----------------------------------------------------------------------------

    def put_record(self, record: Record) -> None:
        """A run's record was written."""
        if record.state in ("starting", "aborted"):
            self.drop_record(record.id)
            return
        self._strangers.pop(record.id, None)
        if not self._kept.put(record):
            self.folds.pop(record.id, None)
            return
        self._widen(record.counts)
        self._lengthen(record)
        fold = self.folds.get(record.id)
        if fold is None:
            if record.live:
                self._open(record)
        elif record.live:
            fold.ledger.tree.topic = record.topic
            fold.complete = fold.complete and record.created_at >= self.history_from and fold.agrees(record)
            if record.seq >= fold.ledger.sequence:
                fold.moved_at = 0.0
        else:
            del self.folds[record.id]

    def drop_record(self, run_id: str) -> None:
        """A run's record has expired."""
        self._kept.drop(run_id)
        self.folds.pop(run_id, None)
        self._strangers.pop(run_id, None)

    def hold(self, run_id: str | None) -> None:
        """Keep this run's record in any case, and no other one any longer: it is looked at."""
        if (gone := self._kept.hold(run_id)) is not None:
            self.folds.pop(gone, None)

    def apply(self, run_id: str, sequence: int, at: float, event: AnyEvent, now: float) -> None:
        """A live run's event, received at `now`; the events of ended runs are left out."""
        if not self._skew_known or at - now > self.skew:
            self.skew, self._skew_known = at - now, True
        self.lag, self._lag_at = max(0.0, now + self.skew - at), now
        if isinstance(event, Ended):
            ended = ended_in(event)
            self.paces.note(at, event.worker, ended)
            self._ends.add(at, ended)
        record = self.records.get(run_id)
        if (record is not None and not record.live) or self._kept.leaves_out(run_id):
            return
        fold = self.folds.get(run_id)
        if fold is None:  # its record comes in a moment
            fold = self.folds[run_id] = Fold("")
            if record is None:
                self._add_stranger(run_id)
        fold.apply(sequence, at, event)
        if not fold.moved_at and record is not None and record.seq < sequence:
            fold.moved_at = now
        if record is None and fold.ledger.over:
            del self.folds[run_id]  # nobody will ask for it: the record has expired

    def reads_anew(self) -> None:
        """What was stored before comes first."""
        self.abreast = False

    def has_read(self) -> None:
        """What comes from now on is new, and says how far the clocks are apart."""
        self.abreast, self._skew_known = True, False

    def resume(self, ledgers: Mapping[str, Ledger], doubtful: Collection[str]) -> None:
        """Go on from a checkpoint: of live runs all is known up to its event, but of the doubtful ones."""
        for run_id, fold in self.folds.items():
            ledger = ledgers.get(run_id)
            if ledger is not None:
                fold.ledger = ledger
            fold.complete = run_id not in doubtful

    def restart(self) -> None:
        """All events are about to come again, from the first on: the server has lost its last ones."""
        self.history_from = 0.0
        self.folds.clear()
        self._strangers.clear()
        self._ends = Pulse(kept=80)
        for record in self.records.values():
            if record.live:
                self._open(record)

    def hear(self, now: float) -> None:
        """Something came from the server, whatever it is."""
        if self.heard_at is not None and self.unheard(now):
            self._gap = (self.heard_at, now)
        self.heard_at = now

    def beat(self, beat: Beat, now: float) -> None:
        """A worker's heartbeat."""
        self._busy_at = None
        self._beats.pop(beat.id, None)  # the one that was silent longest comes first
        if not beat.leaving:
            self._beats[beat.id] = (beat, now)
        if len(self._beats) > WORKERS:
            del self._beats[next(iter(self._beats))]

    def unheard(self, now: float) -> float:
        """Seconds since anything came from the server, if that is longer than between two answers; else 0.

        Without a connection nothing can come: then there is nothing to wait for before it is said.
        """
        silence = 0.0 if self.heard_at is None else now - self.heard_at
        return max(0.0, silence) if silence > UNHEARD or self.link.phase == "offline" else 0.0

    def server_now(self, now: float) -> float:
        """The server's time as far as it is known: while nothing comes from it, it stands still."""
        return now - self.unheard(now) + self.skew

    # --- what it says ------------------------------------------------------------------------------

    def runs(self) -> list[str]:
        """The runs that are kept, the newest first. The list is replaced when it changes, never altered."""
        return self._kept.order()

    def unlisted(self) -> Unlisted:
        """How many there are beside them."""
        return self._kept.unlisted()

    def leaves_out(self, run_id: str) -> bool:
        """Whether this is one of those."""
        return self._kept.leaves_out(run_id)

    @property
    def records(self) -> Mapping[str, Record]:
        """Those that are kept, by id."""
        return self._kept.records

    def run(self, run_id: str, now: float) -> RunView | None:
        """A run as it stands now; None if there is none."""
        record = self.records.get(run_id)
        if record is None:
            return None
        fold = self._fold_of(record)
        if fold is None:
            return self._kept.view(run_id)
        return self._from_fold(record, fold, now)

    def run_in_depth(self, run_id: str, now: float) -> RunView | None:
        """The same, of the run that is looked at: from the very fold that its errors and tasks are from.

        So all that is shown of it adds up; while that fold is behind, what is known elsewhere is better.
        """
        record, detail = self.records.get(run_id), self.detail
        if record is None or not record.live or detail is None or detail.run_id != run_id or not detail.caught_up:
            return self.run(run_id, now)
        if detail.fold.ledger.sequence < record.seq or not detail.fold.agrees(record):
            return self.run(run_id, now)
        return self._from_fold(record, detail.fold, now)

    def agrees(self, run_id: str) -> bool | None:
        """Whether an ended run's record says what its events say when they are folded here; None if not known."""
        record, detail = self.records.get(run_id), self.detail
        if record is None or record.live or detail is None or detail.run_id != run_id or not detail.caught_up:
            return None
        if detail.fold.ledger.round != record.round or not detail.fold.ledger.over:
            return None
        return detail.fold.ledger.counts()[0] == record.counts

    def ledger(self, run_id: str) -> Ledger | None:
        """All that is known of a run: by its own events if they were read, or else by the checkpoint and since."""
        detail, fold = self.detail, self.folds.get(run_id)
        if detail is not None and detail.run_id == run_id and detail.caught_up:
            return detail.fold.ledger
        if fold is not None and fold.complete and fold.ledger.sequence:
            return fold.ledger
        return detail.fold.ledger if detail is not None and detail.run_id == run_id else None

    def pulse(self, run_id: str) -> Pulse | None:
        """The ends of a run over time, as far as its events were read."""
        if self.detail is not None and self.detail.run_id == run_id and self.detail.caught_up:
            return self.detail.fold.pulse
        fold = self.folds.get(run_id)
        return fold.pulse if fold else None

    def workers(self, now: float) -> list[WorkerView]:
        """Workers that were heard of in the last minute, by pool and age."""
        views = [
            worker_view(
                beat,
                seen_at,
                self.records,
                self.paces.rate(beat.id, self.server_now(now)),
                silent=self._silence(seen_at, now) > DEATH,
            )
            for beat, seen_at in self._fresh(now, FORGET)
        ]
        return sorted(views, key=lambda worker: (worker.pool, worker.started_at, worker.id))

    def heard(self, now: float) -> list[WorkerFacts]:
        """The same, for a diagnosis."""
        return [
            WorkerFacts(beat=beat, ago=max(0.0, now - seen_at), ahead=beat.at - seen_at if beat.at else None)
            for beat, seen_at in self._fresh(now, FORGET)
        ]

    def body(self, run_id: str) -> bytes:
        """The message that a run was started with; empty if it was too long to be kept."""
        record = self.records.get(run_id)
        return bytes(record.body) if record else b""

    def shares(self, run_id: str, now: float) -> list[ShareView]:
        """The workers that execute something of a run, or have; by name."""
        beats = {beat.id: beat for beat, _ in self._fresh(now, DEATH) if executes(beat, run_id)}
        alive = {beat.id: beat for beat, _ in self._fresh(now, DEATH)}
        work = self.detail.work if self.detail is not None and self.detail.run_id == run_id else {}
        workers = {name: alive.get(name) for name in {*work, *beats}}
        return shares_of(run_id, workers, work, self.server_now(now), self.at_work(run_id, now))

    def at_work(self, run_id: str, now: float) -> list[AtWork]:
        """What is executed of a run, as far as heartbeats name it; the longest first."""
        named = [
            each
            for beat, seen_at in self._fresh(now, DEATH)
            if beat.longest
            for each in at_work(beat, seen_at)
            if each.run == run_id
        ]
        return sorted(named, key=lambda each: (each.since, each.task))

    def truth(self, now: float) -> Truth:
        """The line on top."""
        alive = [beat for beat, _ in self._fresh(now, DEATH)]
        late = [now - fold.moved_at for fold in self.folds.values() if fold.moved_at]
        return Truth(
            link=self.link,
            unheard=self.unheard(now),
            pools=len({beat.pool for beat in alive}),
            workers=len(alive),
            busy=sum(beat.busy for beat in alive),
            slots=sum(beat.slots for beat in alive),
            rate=self._ends.rate(calm(self.server_now(now))),
            stale=max(late, default=0.0),
            # What was stored long ago comes late because it is read late: only what flows says something.
            abreast=self.abreast,
            lag=self.lag if now - self._lag_at <= FLOWING else 0.0,
            bookkeeper=self.bookkeeper,
        )

    def progress(self, now: float, run_id: str | None) -> tuple[int | None, bool]:
        """The share that is done of one run, or of all that are live, in percent, and whether there are errors.

        None: nothing is under way.
        """
        names = list(self.folds) if run_id is None else [run_id]
        runs = [run for name in names if (run := self.run(name, now)) is not None and not run.ended]
        total = sum(run.counts.total for run in runs)
        if not total:
            return None, False
        return 100 * sum(run.done for run in runs) // total, any(run.counts.error for run in runs)

    def served(self, now: float) -> set[str]:
        """The topics that live workers serve."""
        return {topic for beat, _ in self._fresh(now, DEATH) for topic in beat.topics}

    def _add_stranger(self, run_id: str) -> None:
        """Keep what is folded of a run without a record until it has one, or until there are too many of them."""
        self._strangers[run_id] = None
        if len(self._strangers) > STRANGERS:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            self.folds.pop(oldest, None)

    # --- helpers -----------------------------------------------------------------------------------

    def _open(self, record: Record) -> None:
        fold = self.folds[record.id] = Fold(record.topic)
        # What was stored before the history begins, or before a retry brought the run back, is not read again.
        fold.complete = record.created_at >= self.history_from and record.round == 0

    def _fold_of(self, record: Record) -> Fold | None:
        fold = self.folds.get(record.id)
        if fold is None or not fold.complete or fold.ledger.sequence < record.seq:
            return None  # the record knows more
        return fold

    def _from_fold(self, record: Record, fold: Fold, now: float) -> RunView:
        """The same view again while nothing has changed that it is made of."""
        at, busy = calm(self.server_now(now)), self._busy(now).get(record.id, IDLE)
        made_of = (record, fold.ledger.sequence, at, busy.topics, busy.root)
        if fold.view is None or fold.view[0] != made_of:
            fold.view = made_of, run_view(record, fold, at, busy.topics, root_running=busy.root)
            self._widen(fold.view[1].counts)
        return fold.view[1]

    def _busy(self, now: float) -> dict[str, Busy]:
        """What workers execute of each run, as they last said; looked up once for all runs that are drawn together."""
        if self._busy_at != now:
            self._busy_at, self._busy_with = now, busy_with(beat for beat, _ in self._fresh(now, DEATH))
        return self._busy_with

    def _fresh(self, now: float, seconds: float) -> Iterator[tuple[Beat, float]]:
        return ((beat, seen_at) for beat, seen_at in self._beats.values() if self._silence(seen_at, now) <= seconds)

    def _silence(self, seen_at: float, now: float) -> float:
        """For how long a worker has been silent, as far as that says something: while the server is, all are."""
        began, ended = self._gap
        return now - self.unheard(now) - seen_at - (ended - began if seen_at <= began else 0.0)

    def _widen(self, counts: Counts) -> None:
        for name in ("total", "running", "error", "interrupted"):
            self.widest[name] = max(self.widest.get(name, 0), getattr(counts, name))

    def _lengthen(self, record: Record) -> None:
        topic = len(record.topic)
        # What a run is called by those who started it: its topic, and behind it its unique key.
        name = topic + (2 + len(record.unique) if record.unique else 0)
        for text, length in (("id", len(record.id)), ("topic", topic), ("name", name)):
            if length > self.widest.get(text, 0):
                self.widest[text] = length

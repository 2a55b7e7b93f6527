"""Who is alive, and who has confirmed that a run has stopped. Fed by heartbeats; pure, the clock is passed in."""

from __future__ import annotations

import sys

from corral.runs import Beat


class Roster:
    """The workers that were heard.

    A worker that was not heard for `death` seconds is taken for dead. Until `listening_since + death` there may be
    living ones that were not heard yet, so nobody can say that all have confirmed anything.
    """

    def __init__(self, death: float) -> None:
        self._death = death
        self._beats: dict[str, tuple[Beat, float]] = {}
        self.listening_since: float | None = None
        """When the first heartbeat could have been heard; minus infinity where no worker can be older than that."""

        self.idle = False
        """When listening began, no message was in anybody's hands, nor asked for."""

    def vouch(self) -> None:
        """No worker that was not heard can hold a task."""
        self.listening_since = float("-inf")

    def hear(self, beat: Beat, now: float) -> None:
        """Take note of a heartbeat."""
        if beat.leaving:
            self._beats.pop(beat.id, None)
        else:
            self._beats[beat.id] = (beat, now)

    def beat(self, worker: str) -> Beat | None:
        """The last heartbeat of a worker."""
        found = self._beats.get(worker)
        return found[0] if found is not None else None

    def alive(self, now: float) -> list[Beat]:
        """The last heartbeat of each living worker."""
        for worker, (_, heard) in list(self._beats.items()):
            if now - heard > self._death:
                del self._beats[worker]
        return [beat for beat, _ in self._beats.values()]

    def seen(self, now: float) -> list[tuple[Beat, float]]:
        """The last heartbeat of each living worker, and how many seconds ago it was heard."""
        self.alive(now)
        return [(beat, now - heard) for beat, heard in self._beats.values()]

    def confirmed(self, now: float) -> tuple[int, set[str]]:
        """What every living worker has seen: markers up to this revision; and the runs of which some hold tasks still.

        -1 while there may be workers that were not heard yet.
        """
        if self.listening_since is None or now - self.listening_since < self._death:
            return -1, set()
        alive = self.alive(now)
        stopping = {run_id for beat in alive for run_id in beat.stopping}
        return min((beat.markers for beat in alive), default=sys.maxsize), stopping

    def running(self, run_id: str, now: float) -> tuple[dict[str, int], bool]:
        """What of a run is being executed: tasks by topic without the root, and whether the root is."""
        topics: dict[str, int] = {}
        root = False
        for beat in self.alive(now):
            for topic, count in beat.running.get(run_id, {}).items():
                topics[topic] = topics.get(topic, 0) + count
            root = root or run_id in beat.roots
        return topics, root

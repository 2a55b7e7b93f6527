"""Everything that a worker holds: its jobs, from their delivery until their messages are settled."""

from __future__ import annotations

import asyncio
import heapq

from corral.jetstream.puller import Delivery
from corral.job import Job
from corral.markers import Markers
from corral.messages import ROOT
from corral.runs import LONG, LONGEST, Execution


class Holding:
    """The jobs of a worker, by run. Changed in the worker's loop only; what only reads is safe in any thread."""

    def __init__(self) -> None:
        self._by_run: dict[str, set[Job]] = {}
        self._idle = asyncio.Event()

    def add(self, job: Job) -> None:
        """Hold a job."""
        self._by_run.setdefault(job.run_id, set()).add(job)

    def settle(self, job: Job) -> bool:
        """Let go of a job; whether it was the last one of its run."""
        jobs = self._by_run.get(job.run_id)
        if jobs is None:
            return False
        jobs.discard(job)
        if jobs:
            return False
        del self._by_run[job.run_id]
        if not self._by_run:
            self._idle.set()
        return True

    def of_run(self, run_id: str) -> list[Job]:
        """The jobs of one run."""
        return list(self._by_run.get(run_id, ()))

    def jobs(self) -> list[Job]:
        """All jobs."""
        return [job for jobs in list(self._by_run.values()) for job in list(jobs)]

    def count(self) -> int:
        """How many jobs are held."""
        return sum(map(len, list(self._by_run.values())))

    async def until_idle(self, seconds: float) -> None:
        """Return when nothing is held any more, or after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                while self._by_run:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return

    def older(self, since: float) -> list[Delivery]:
        """The deliveries of jobs that came before `since`, a `time.monotonic()`."""
        return [job.delivery for job in self.jobs() if job.since < since]

    def running(self) -> tuple[dict[str, dict[str, int]], list[str]]:
        """Tasks that are executed, by run and topic, without roots; and the runs whose root is."""
        running: dict[str, dict[str, int]] = {}
        roots: list[str] = []
        for job in self.jobs():
            if job.executing and job.task == ROOT:
                roots.append(job.run_id)
            elif job.executing:
                topics = running.setdefault(job.run_id, {})
                topics[job.topic] = topics.get(job.topic, 0) + 1
        return running, roots

    def longest(self, now: float) -> list[Execution]:
        """What is executed for longest at `now`, a `time.monotonic()`; what has just begun is left out."""
        old = [job for job in self.jobs() if job.executing and now - job.began >= LONG]
        return [
            Execution(job.run_id, job.topic, job.task, round(now - job.began, 1))
            for job in heapq.nsmallest(LONGEST, old, key=lambda job: job.began)
        ]

    def stopping(self, markers: Markers) -> list[str]:
        """Runs that have a marker, and of which something is still held."""
        return list({job.run_id for job in self.jobs() if markers.stops(job.run_id, job.round)})

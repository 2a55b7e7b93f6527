"""Findings about topics: what waits, and who might take it."""

from __future__ import annotations

from collections.abc import Iterator

from corral.doctor.facts import ConsumerFacts, Facts
from corral.doctor.finding import Finding, lasting, many, some, verb
from corral.doctor.workers import alive
from corral.runs import Beat, Record

MOST = 20
"""Runs with messages left over that are told."""


def topic_findings(facts: Facts) -> Iterator[Finding]:
    """Of every topic that has messages, workers or a consumer."""
    if facts.jetstream or facts.workers is None:
        return
    heard = alive(facts)
    served = {topic for beat in heard for topic in beat.topics}
    waiting: dict[str, list[str]] = {}
    for run, topic in facts.after.queued:
        waiting.setdefault(topic, []).append(run)
    wanted = {facts.run} if facts.run else None
    for topic in sorted({*waiting, *served, *facts.after.consumers}):
        if wanted and not wanted & set(waiting.get(topic, ())):
            continue
        yield from _topic(facts, topic, waiting.get(topic, []), heard)
    yield from _leftovers(facts)


def _topic(facts: Facts, topic: str, runs: list[str], heard: list[Beat]) -> Iterator[Finding]:
    serving = [beat for beat in heard if topic in beat.topics and not beat.leaves]
    leaving = sum(topic in beat.topics for beat in heard) - len(serving)
    count = sum(facts.after.queued.get((run, topic), 0) for run in runs)
    consumer = facts.after.consumers.get(topic)
    if not serving:
        if heard:  # else it is said once that nobody is there
            yield _unserved(topic, runs, count, leaving)
    elif consumer is None:
        if facts.after.listed:
            yield Finding(
                severity="wrong",
                code="consumer-missing",
                about=topic,
                text=f"the consumer of topic {topic} is gone, so that nothing of it is delivered",
                help="a worker that serves it makes it again within moments; else: corral pool APP",
            )
    else:
        yield from _configured(topic, consumer, serving)
        yield from _stuck(facts, topic, consumer, serving)
    if consumer is not None:
        yield from _orphans(facts, topic, consumer, heard)


def _unserved(topic: str, runs: list[str], count: int, leaving: int) -> Finding:
    but = f" but {many(leaving, 'worker')} that {verb(leaving, 'leaves', 'leave')}" if leaving else ""
    if not count:
        return Finding(
            severity="note",
            code="topic-left",
            about=topic,
            text=f"no worker serves topic {topic} any more{but}; nothing waits there",
        )
    return Finding(
        severity="wrong",
        code="topic-unserved",
        about=topic,
        text=f"no worker serves topic {topic}{but}: {many(count, 'message')} of {some(f'run {run}' for run in runs)}"
        f" {verb(count, 'waits', 'wait')}",
        help=f"corral pool APP, with a processor for {topic}",
    )


def _configured(topic: str, consumer: ConsumerFacts, serving: list[Beat]) -> Iterator[Finding]:
    problems = list(consumer.problems)
    wanted = {float(beat.settings.get("ack_wait", 0.0)) for beat in serving} - {0.0}
    if wanted and consumer.ack_wait not in wanted:
        problems.append(f"it waits {consumer.ack_wait:g} s for a worker, and the workers say {min(wanted):g} s")
    if problems:
        yield Finding(
            severity="warning",
            code="consumer-misconfigured",
            about=topic,
            text=f"the consumer of topic {topic} is not as Corral needs it: {'; '.join(problems)}",
            help="corral pool APP: a pool that starts sets it right",
        )
    if consumer.paused > 0:
        yield Finding(
            severity="wrong" if consumer.waiting else "warning",
            code="topic-paused",
            about=topic,
            text=f"topic {topic} is paused for another {lasting(consumer.paused)}: nothing of it is delivered",
            help=f"nats consumer resume STREAM {topic.replace('.', '+')}",
        )


def _stuck(facts: Facts, topic: str, consumer: ConsumerFacts, serving: list[Beat]) -> Iterator[Finding]:
    """Messages that nobody asks for, although workers are there."""
    before = facts.before.consumers.get(topic)
    still = before is not None and before.delivered == consumer.delivered and before.waiting and consumer.waiting
    if not still or consumer.paused > 0:
        return
    slots, busy = sum(beat.slots for beat in serving), sum(beat.busy for beat in serving)
    if all(beat.busy >= beat.slots for beat in serving):
        yield Finding(
            severity="warning",
            code="workers-full",
            about=topic,
            text=f"all {busy:,} of {slots:,} slots are taken where topic {topic} is served, by long tasks"
            f" ({_work(serving)}): {many(consumer.waiting, 'message')} {verb(consumer.waiting, 'waits', 'wait')}",
            help="corral pool APP, on more machines or with a higher -c",
        )
    elif not consumer.asks:
        running = sum(topics.get(topic, 0) for beat in serving for topics in beat.running.values())
        if any(beat.blocked for beat in serving):
            return  # said already
        why = "outcomes cannot be stored"
        if running:
            why = f"its `concurrency` or the threads are used up by the {running:,} that run, or {why}"
        yield Finding(
            severity="warning" if running else "wrong",
            code="nobody-asks",
            about=topic,
            text=f"{many(consumer.waiting, 'message')} of topic {topic} {verb(consumer.waiting, 'waits', 'wait')},"
            f" and no worker asks for more: {why}",
            help="more worker processes: corral pool APP -p N" if running else "look into the logs of the pools",
        )


def _work(beats: list[Beat]) -> str:
    """What workers are busy with, the most first."""
    counts: dict[str, int] = {}
    for beat in beats:
        for run, topics in beat.running.items():
            for topic, count in topics.items():
                counts[f"{topic} of {run}"] = counts.get(f"{topic} of {run}", 0) + count
        for run in beat.roots:
            counts[f"the root of {run}"] = 1
    most = sorted(counts, key=lambda what: -counts[what])
    return some([f"{counts[what]:,} {what}" for what in most], 2)


def _orphans(facts: Facts, topic: str, consumer: ConsumerFacts, heard: list[Beat]) -> Iterator[Finding]:
    """Messages that were delivered, and that no worker says it executes."""
    before = facts.before.consumers.get(topic)
    if before is None:
        return
    records = [run.record for run in facts.runs if run.record.live]
    roots = {record.id for record in records if record.topic == topic}
    known = sum(_retrying(record, topic) for record in records)
    known += sum(topics.get(topic, 0) for beat in heard for topics in beat.running.values())
    known += sum(run in roots for beat in heard for run in beat.roots)
    lost = min(before.held, consumer.held) - known
    if lost <= 0 or before.delivered != consumer.delivered or facts.run:
        return  # while it moves nobody can tell
    serving = [beat for beat in heard if topic in beat.topics]
    if any(beat.busy >= beat.slots for beat in serving):
        return  # handed back by workers that are full
    yield Finding(
        severity="warning",
        code="tasks-held",
        about=topic,
        text=f"{many(lost, 'message')} of topic {topic} {verb(lost, 'was', 'were')} delivered to workers that are not"
        f" heard, or handed back: others get {verb(lost, 'it', 'them')} at the latest after {consumer.ack_wait:g} s",
        help="corral doctor, once more after that time",
    )


def _retrying(record: Record, topic: str) -> int:
    """Tasks of a run and topic that are in back-off."""
    if not record.topics:
        return record.counts.retrying if record.topic == topic else 0
    return record.topics[topic].retrying if topic in record.topics else 0


def _leftovers(facts: Facts) -> Iterator[Finding]:
    """Messages of runs that are over."""
    still: dict[str, list[str]] = {}
    for run, topic in facts.after.queued:
        if run in facts.ended and (run, topic) in facts.before.queued:
            still.setdefault(run, []).append(topic)
    for run, topics in list(still.items())[:MOST]:
        recorded = facts.ended[run]
        count = sum(facts.after.queued[run, topic] for topic in topics)
        what = "which has ended" if recorded else "of which there is no record"
        yield Finding(
            severity="warning",
            code="leftover",
            about=run,
            text=f"{many(count, 'message')} of run {run}, {what}, {verb(count, 'lies', 'lie')} in the queue"
            f" (topic {some(topics)})",
            help="a worker that serves the topic drops them: corral pool APP",
        )

"""Findings about the server, what is stored there, the bookkeeper and the clocks."""

from __future__ import annotations

from collections.abc import Iterator

from corral.doctor.facts import Facts, StreamFacts
from corral.doctor.finding import Finding, Severity, lasting, many, size, some, verb

FULL, STARTS, NEARLY = 0.99, 0.89, 0.8
"""Parts of a limit: from the first on a message may find no room, from the second on starts do not, for which the last
tenth is not meant; from the third on it is worth a word."""
SKEW, MUCH_SKEW = 2.0, 30.0
"""Seconds by which clocks may differ: beyond the first times look odd, beyond the second ages and retries are wrong."""
SLOW = 2.0
"""Seconds after which workers do not wait any longer for the bookkeeper's answer."""
_RAISE = {kind: f"CORRAL_{kind.upper()}_MAX_BYTES=... corral pool APP" for kind in ("tasks", "events", "runs")}
_REFUSED = {
    "tasks": "new starts are refused, and tasks that send others wait",
    "events": "no outcome can be stored: workers keep what they have, and pull nothing more",
    "runs": "no run can be started, stopped or ended",
}


def server_findings(facts: Facts) -> Iterator[Finding]:
    """JetStream, the streams, and room."""
    if facts.slow:
        yield Finding(
            severity="wrong",
            code="jetstream-slow",
            about=facts.server,
            text=f"JetStream on {facts.server} has not answered in time ({facts.jetstream}): the server has too much to"
            " do, its disk is slow, or a cluster has no leader",
            help="corral doctor, once more; then `nats server report jetstream`, and the server's log",
        )
        return
    if facts.jetstream:
        yield Finding(
            severity="wrong",
            code="jetstream-off",
            about=facts.server,
            text=f"JetStream cannot be used on {facts.server}: {facts.jetstream}",
            help="nats-server -js, or `jetstream {}` in its configuration",
        )
        return
    if len(facts.missing) == 3:
        yield Finding(
            severity="note",
            code="nothing-here",
            about=facts.namespace,
            text=f"namespace {facts.namespace!r} is empty: no pool has ever been here",
            help="corral env",
        )
    elif facts.missing:
        yield Finding(
            severity="wrong",
            code="stream-missing",
            about=facts.missing[0],
            text=f"{some(facts.missing)} {verb(len(facts.missing), 'is', 'are')} gone: deleted by somebody",
            help="corral pool APP",
        )
    for stream in facts.streams:
        yield from _stream(facts, stream)
    account = facts.account
    if account is not None and account.limit > 0 and account.bytes >= NEARLY * account.limit:
        yield Finding(
            severity="wrong" if account.bytes >= FULL * account.limit else "warning",
            code="server-full",
            about=facts.server,
            text=f"the streams of this account take {size(account.bytes)} of the {size(account.limit)} that they may",
            help="raise the account's limit, or `max_file` in the server's configuration",
        )


def _stream(facts: Facts, stream: StreamFacts) -> Iterator[Finding]:
    if stream.share >= NEARLY:
        used = f"{size(stream.bytes)} of {size(stream.limit)} ({stream.share:.0%})"
        severity: Severity = "wrong"
        if stream.share >= FULL:
            code, text = "stream-full", f"{stream.name} is full, {used}: {_REFUSED[stream.kind]}"
        elif stream.share >= STARTS:
            code = "starts-refused"
            text = f"{stream.name} has no room for new runs, {used}: starts are refused, what has begun goes on"
        else:
            severity = "warning"
            code = "stream-filling"
            text = f"{stream.name} is filling up, {used}; when it is full, {_REFUSED[stream.kind]}"
        if stream.kind == "tasks" and (waiting := _waiting(facts)):
            text += f"; {waiting}"
        yield Finding(severity=severity, code=code, about=stream.name, text=text, help=_RAISE[stream.kind])
    if stream.problems:
        yield Finding(
            severity="wrong",
            code="stream-misconfigured",
            about=stream.name,
            text=f"{stream.name} is not as Corral needs it: {'; '.join(stream.problems)}",
            help="corral pool APP",
        )
    if stream.behind:
        yield Finding(
            severity="warning",
            code="replica-behind",
            about=stream.name,
            text=f"{stream.name} has no current copy on {some(stream.behind)}",
            help="nats server report jetstream",
        )


def _waiting(facts: Facts) -> str:
    """Who waits for room now."""
    waiting = {worker.beat.id: worker.beat.waiting for worker in facts.workers or [] if worker.beat.waiting}
    count = sum(waiting.values())
    return f"{many(count, 'task')} {verb(count, 'waits', 'wait')} for room (worker {some(waiting)})" if count else ""


def bookkeeper_findings(facts: Facts) -> Iterator[Finding]:
    """Whether somebody keeps the books."""
    found = facts.bookkeeper
    if found is None or facts.jetstream or facts.missing:
        return
    live = any(run.record.live for run in facts.runs)
    if found.pool is None:
        yield Finding(
            severity="wrong" if live or facts.workers else "note",
            code="no-bookkeeper",
            about=facts.namespace,
            text="no pool keeps the books: runs neither end nor are counted, and redelivered tasks wait",
            help="corral pool APP",
        )
    elif found.answers is False:
        yield Finding(
            severity="wrong",
            code="bookkeeper-silent",
            about=found.pool,
            text=f"pool {found.pool} keeps the books and does not answer: redelivered tasks wait, and runs do not end",
            help=f"end the process of pool {found.pool}: another one takes over",
        )
    elif found.answers and found.seconds > SLOW:
        yield Finding(
            severity="warning",
            code="bookkeeper-slow",
            about=found.pool,
            text=f"the bookkeeper, pool {found.pool}, took {lasting(found.seconds)} to answer: it is behind",
            help="corral doctor, once more: it catches up by itself unless it has too little processor time",
        )


def clock_findings(facts: Facts) -> Iterator[Finding]:
    """Clocks that differ."""
    ahead = facts.server_ahead
    if ahead is not None and abs(ahead) > SKEW:
        yield _skew(facts.server, f"the clock of the server {facts.server}", ahead)
    hosts: dict[str, float] = {}
    for worker in facts.workers or []:
        if worker.ahead is not None and abs(worker.ahead) > SKEW:
            hosts.setdefault(worker.beat.host, worker.ahead)
    for host, seconds in hosts.items():
        yield _skew(host, f"the clock of {host}, where workers are,", seconds)


def _skew(about: str, whose: str, ahead: float) -> Finding:
    return Finding(
        severity="wrong" if abs(ahead) > MUCH_SKEW else "warning",
        code="clock-skew",
        about=about,
        text=f"{whose} is {lasting(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this machine's",
        help="set the clocks by NTP: timedatectl status",
    )


def odd_messages(facts: Facts) -> Iterator[Finding]:
    """Messages that nobody will execute as they are."""
    for kind in ("stranded", "poison"):
        found = [message for message in facts.odd if message.kind == kind]
        if not found:
            continue
        first = found[0]
        where = f"topic {first.topic}, run {first.run}, message {first.sequence:,} of the queue"
        if kind == "stranded":
            yield Finding(
                severity="warning",
                code="stranded",
                about=first.topic,
                text=f"the server has forgotten {many(len(found), 'message')} that it still holds ({where});"
                " the bookkeeper sends them again",
                help=f"corral show {first.run}",
            )
        else:
            yield Finding(
                severity="warning",
                code="poison",
                about=first.topic,
                text=f"{many(len(found), 'message')} {verb(len(found), 'is no task', 'are no tasks')} that Corral can"
                f" read ({where})",
                help=f"nats stream rmm {facts.namespace}_TASKS {first.sequence}",
            )

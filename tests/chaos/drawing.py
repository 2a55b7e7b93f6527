"""From a seed to a plan."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from tests.chaos.plans import LENGTH, POOLS, PRODUCERS, Fault, Interrupt, Plan, Retry, Start, What
from tests.chaos.work import How, Work


def make_plan(seed: int, *, cluster: bool = False) -> Plan:
    """The history of this seed."""
    rng = random.Random(f"{seed} {cluster}")
    starts, interrupts, retries = _workload(rng)
    faults = _faults(rng, cluster=cluster)
    # Drawn apart, so that the seeds of before there were these have kept their histories, but for what is added.
    more = random.Random(f"{seed} {cluster} added")
    _add_faults(more, faults, cluster=cluster)
    if any(fault.what == "kill child" or fault.step.startswith("child:") for fault in faults):
        starts.append(_isolated_run(more))
    _select(random.Random(f"{seed} {cluster} selected"), retries)
    clocks = {rng.choice(POOLS): rng.choice((-3600.0, 3600.0))} if rng.random() < 0.12 else {}
    return Plan(
        seed=seed,
        cluster=cluster,
        starts=starts,
        interrupts=interrupts,
        retries=retries,
        faults=faults,
        both_lead=rng.random() < 0.1,
        clocks=clocks,
        workers={"a": rng.choice((1, 2)), "b": 1},
        slots=rng.choice((4, 10, 30)),
    )


# --- workload ------------------------------------------------------------------------------------


def _workload(rng: random.Random) -> tuple[list[Start], list[Interrupt], list[Retry]]:
    starts: list[Start] = []
    interrupts: list[Interrupt] = []
    retries: list[Retry] = []
    for number in range(rng.randint(4, 7)):
        name = f"r{number}"
        at = round(rng.uniform(0, LENGTH * 0.7), 2)
        key, topic = None, rng.choices(("calm", "tough", "thread", "keyed", "computed"), (5, 2, 1, 3, 1))[0]
        if topic in ("keyed", "computed"):
            work = _tree(rng, name, topic, key=f"key{rng.randint(0, 1)}")
        else:
            work = _tree(rng, name, topic)
            key = f"key{rng.randint(0, 1)}" if rng.random() < 0.2 else None
        keyed = key is not None or topic == "keyed"
        start = Start(
            at=at,
            producer=rng.choice(PRODUCERS),
            id=name,
            work=work,
            key=key,
            on_duplicate=rng.choice(("reject", "join", "replace")) if keyed else "reject",
            gives_up=rng.random() < 0.2,
        )
        starts.append(start)
        if rng.random() < 0.25:  # the other one does the same, at about the same time
            other = PRODUCERS[1 - PRODUCERS.index(start.producer)]
            later = round(at + rng.choice((0.0, 0.0, 0.01, 0.5)), 2)
            starts.append(msgspec.structs.replace(start, at=later, producer=other))
        if rng.random() < 0.25:
            moment = round(at + rng.choice((0.0, 0.05, 0.3, 1.0, 2.0)), 2)
            kill_after = rng.choice((None, None, None, 0.5))
            interrupts.append(Interrupt(at=moment, producer=rng.choice(PRODUCERS), id=name, kill_after=kill_after))
        if rng.random() < 0.6:
            retries.append(Retry(producer=rng.choice(PRODUCERS), id=name))
    return starts, interrupts, retries


def _select(rng: random.Random, retries: list[Retry]) -> None:
    """Limit some retries to a part; of these, some meet another one of the same run."""
    for index, retry in enumerate(list(retries)):
        if rng.random() < 0.4:
            retries[index] = msgspec.structs.replace(retry, part=rng.choice(("tasks", "tasks", "topic")))
            if rng.random() < 0.4:
                retries.append(Retry(rng.choice(PRODUCERS), retry.id, rng.choice(("", "tasks"))))


def _tree(rng: random.Random, name: str, topic: str, *, key: str = "") -> Work:
    shape = rng.random()
    if shape < 0.35:  # one wide fan-out
        return Work(name, topic, many=rng.choice((5, 30, 120, 250)), each=rng.choice((0.0, 0.0, 0.01)), key=key)
    if shape < 0.5:  # a lone task
        return msgspec.structs.replace(_leaf(rng, name), topic=topic, key=key)
    fan = [_branch(rng, f"{name}.{i}", depth=1) for i in range(rng.randint(2, 6))]
    how: How = "flaky" if rng.random() < 0.15 else "ok"
    return Work(name, topic, how=how, seconds=_duration(rng), fan=fan, key=key)


def _branch(rng: random.Random, name: str, depth: int) -> Work:
    leaf = _leaf(rng, name)
    if depth < 3 and rng.random() < 0.5:
        fan = [_branch(rng, f"{name}.{i}", depth + 1) for i in range(rng.randint(1, 4))]
        many = rng.choice((0, 0, 10, 60))
        return msgspec.structs.replace(leaf, fan=fan, many=many, each=rng.choice((0.0, 0.01)))
    return leaf


def _leaf(rng: random.Random, name: str) -> Work:
    topic = rng.choices(("calm", "tough", "thread", "alone"), (5, 3, 3, 1))[0]
    kinds: tuple[How, ...] = ("ok", "fail", "reject", "flaky", "requeue", "fickle", "start", "deaf")
    how = rng.choices(kinds, (10, 3, 1, 2, 2, 2, 1, 1))[0]
    seconds, times = _duration(rng), 0
    match how:
        case "fail":
            times = rng.choice((1, 2, 3))
        case "fickle":
            topic, times = rng.choice(("calm", "tough")), rng.choice((3, 60, 150))
        case "start":
            topic = rng.choice(("calm", "tough", "thread"))
        case "deaf":
            topic, seconds = "thread", 1.5
    return Work(name, topic, how=how, times=times, seconds=seconds)


def _duration(rng: random.Random) -> float:
    return rng.choice((0.0, 0.0, 0.01, 0.05, 0.05, 0.3, 1.0))


def _isolated_run(rng: random.Random) -> Start:
    kinds: tuple[How, ...] = ("ok", "fail", "reject")
    fan = [
        Work(f"alone.{i}", rng.choice(("alone", "alone-twice")), how=rng.choices(kinds, (6, 2, 1))[0], times=1,
             seconds=_duration(rng), many=rng.choice((0, 0, 0, 60)))
        for i in range(rng.randint(4, 8))
    ]  # fmt: skip
    return Start(at=0.0, producer=rng.choice(PRODUCERS), id="alone", work=Work("alone", fan=fan))


# --- faults --------------------------------------------------------------------------------------

_WORKER_STEPS = (
    "pulled", "begun", "ran", "before ended", "after ended", "acked", "before opened", "after opened", "before window",
    "after window", "before sent", "after sent", "before failed", "after failed", "before retrying", "after retrying",
    "before run.running", "after run.running",
)  # fmt: skip
_PRODUCER_STEPS = (
    "before run.starting", "after run.starting", "after unique", "before run.queued", "after run.queued",
    "before task", "after task", "after run.reopening", "before reopened", "after reopened", "after window",
    "before interrupted", "after interrupted", "before interrupt", "after interrupt",
)  # fmt: skip
_POOL_STEPS = (
    "after run.ending", "after run.interrupting", "before interrupt", "after interrupt", "before run-ended",
    "after run-ended", "before unique freed", "after unique freed", "before run.final", "after run.final",
    "after ledger", "after run.running", "before crashed", "after crashed",
)  # fmt: skip


def _faults(rng: random.Random, *, cluster: bool) -> list[Fault]:
    count = rng.choices((1, 2, 3, 4, 5, 6), (1, 3, 3, 2, 1, 1))[0]
    kinds = _CLUSTER_KINDS if cluster else _SERVER_KINDS
    makers, weights = [make for make, _ in kinds], [weight for _, weight in kinds]
    faults: list[Fault] = []
    for make in rng.choices(makers, weights, k=count):
        fault = make(rng)
        if fault.what in _ONCE and any(other.what in _ONCE for other in faults):
            continue
        faults.append(fault)
    return faults


_ONCE = (
    "kill server", "stop server", "server away", "freeze server", "fill server", "lose tail", "kill leader",
    "rolling restart", "refuse node", "hold node", "hold node out", "hold node in",
)  # fmt: skip
"""Of what happens to the server, one thing a history: it must be over before the next."""


def _add_faults(rng: random.Random, faults: list[Fault], *, cluster: bool) -> None:
    if rng.random() < 0.25:
        faults.extend(_children(rng))
    if rng.random() < (0.45 if cluster else 0.03):
        faults[:] = [fault for fault in faults if fault.what not in _ONCE]
        faults.append(_cut_off(rng) if cluster else Fault("server away", at=_moment(rng), seconds=60.0))


def _moment(rng: random.Random) -> float:
    return round(rng.uniform(0.1, LENGTH * 0.8), 2)


def _at_step(rng: random.Random, what: What, role: str, steps: tuple[str, ...], *, most: int, **more: float) -> Fault:
    nth = min(rng.randint(1, most), rng.randint(1, most))
    return Fault(what, step=f"{role}:{rng.choice(steps)}", nth=nth, seconds=more.get("seconds", 0.0))


def _kill_worker_at_step(rng: random.Random) -> Fault:
    return _at_step(rng, "kill", "worker", _WORKER_STEPS, most=12)


def _freeze_worker_at_step(rng: random.Random) -> Fault:
    return _at_step(rng, "freeze", "worker", _WORKER_STEPS, most=12, seconds=rng.choice((1.0, 2.6, 4.0)))


def _kill_producer_at_step(rng: random.Random) -> Fault:
    return _at_step(rng, "kill", "producer", _PRODUCER_STEPS, most=3)


def _freeze_producer_at_step(rng: random.Random) -> Fault:
    return _at_step(rng, "freeze", "producer", _PRODUCER_STEPS, most=3, seconds=rng.choice((1.0, 4.0)))


def _kill_bookkeeper_at_step(rng: random.Random) -> Fault:
    return _at_step(rng, rng.choice(("kill", "kill pool")), "pool", _POOL_STEPS, most=3)


def _freeze_bookkeeper_at_step(rng: random.Random) -> Fault:
    return _at_step(rng, "freeze", "pool", _POOL_STEPS, most=3, seconds=rng.choice((1.5, 3.0)))


def _process(rng: random.Random) -> Fault:
    what: What = rng.choice(
        ("kill", "kill", "kill pool", "kill pool only", "kill bookkeeper", "freeze", "freeze pool", "freeze bookkeeper",
         "drain", "depose", "kill producer")
    )  # fmt: skip
    whom = rng.choice(PRODUCERS if what == "kill producer" else POOLS)
    seconds = rng.choice((1.0, 2.6, 4.0)) if what.startswith("freeze") else 0.0
    return Fault(what, at=_moment(rng), whom=whom, which=rng.randint(0, 3), seconds=seconds)


def _network(rng: random.Random) -> Fault:
    what: What = rng.choice(("cut", "cut", "refuse", "hold up", "hold down", "hold both", "cut in frame", "delay"))
    seconds = 0.0 if what in ("cut", "cut in frame") else rng.choice((0.3, 1.0, 2.6, 4.0))
    return Fault(what, at=_moment(rng), whom=rng.choice((*POOLS, *POOLS, *PRODUCERS)), which=rng.randint(1, 400),
                 seconds=seconds)  # fmt: skip


def _server(rng: random.Random) -> Fault:
    what: What = rng.choice(("kill server", "kill server", "stop server", "freeze server", "fill server"))
    return Fault(what, at=_moment(rng), seconds=rng.choice((0.0, 0.5, 1.5, 3.0)) or 0.05)


def _server_at_step(rng: random.Random) -> Fault:
    role, steps = rng.choice(
        (("worker", _WORKER_STEPS), ("worker", _WORKER_STEPS), ("pool", _POOL_STEPS), ("producer", _PRODUCER_STEPS))
    )
    return _at_step(rng, "kill server", role, steps, most=6, seconds=rng.choice((0.05, 0.5, 1.5)))


def _lose_tail(rng: random.Random) -> Fault:
    whom = rng.choice(("", "", "TASKS", "EVENTS", "RUNS"))  # all streams, or one more than the others
    return Fault("lose tail", at=_moment(rng), whom=whom, seconds=rng.choice((0.1, 0.3, 1.0, 2.0)))


def _children(rng: random.Random) -> list[Fault]:
    at_random = [Fault("kill child", at=_moment(rng), which=rng.randint(0, 3)) for _ in range(rng.randint(1, 3))]
    return [*at_random, _at_step(rng, "kill", "child", ("begun", "ran"), most=3)]


_CUTS = (1.0, 2.5, 4.0, 7.0, 9.0, 12.0, 16.0)


def _cut_off(rng: random.Random) -> Fault:
    what: What = rng.choice(("refuse node", "hold node", "hold node", "hold node out", "hold node in"))
    # With the routes alone, clients stay on both sides; else these have only this node, and the others do not have it.
    whom = rng.choice(("", "", "none", "a", "b", "a p", "b q", "p"))
    # Servers elect another leader after 4 to 9 s; one without its quorum notices within 10 to 20 s.
    return Fault(what, at=_moment(rng), whom=whom, which=rng.randint(0, 2), seconds=rng.choice(_CUTS))


def _leader(rng: random.Random) -> Fault:
    what: What = rng.choice(("step down", "step down", "kill leader"))
    seconds = rng.choice((0.3, 1.5, 3.0)) if what == "kill leader" else 0.0
    return Fault(what, at=_moment(rng), whom=rng.choice(("TASKS", "EVENTS", "RUNS")), seconds=seconds)


def _node(rng: random.Random) -> Fault:
    what: What = rng.choice(("kill server", "stop server", "freeze server", "freeze server"))
    return Fault(what, at=_moment(rng), which=rng.randint(0, 2), seconds=rng.choice((0.3, 1.5, 4.0)))


def _rolling(rng: random.Random) -> Fault:
    return Fault("rolling restart", at=_moment(rng), which=rng.randint(0, 2))


_Kinds = list[tuple[Callable[[random.Random], Fault], int]]
_PROCESSES: _Kinds = [
    (_kill_worker_at_step, 5),
    (_freeze_worker_at_step, 3),
    (_kill_producer_at_step, 4),
    (_freeze_producer_at_step, 1),
    (_kill_bookkeeper_at_step, 4),
    (_freeze_bookkeeper_at_step, 2),
    (_process, 6),
    (_network, 6),
]
_SERVER_KINDS: _Kinds = [*_PROCESSES, (_server, 4), (_server_at_step, 3), (_lose_tail, 1)]
_CLUSTER_KINDS: _Kinds = [*_PROCESSES, (_leader, 14), (_node, 10), (_rolling, 4)]

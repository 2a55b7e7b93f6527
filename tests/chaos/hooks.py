"""Named steps of Corral's processes, at each of which the harness can strike.

Loaded with the app of the histories, and only there: it wraps a few methods of Corral. A process that comes to a
step for the n-th time, and is told to announce that, stands still until the harness has done what it wants.

    worker:begun  worker:ran  worker:before ended  worker:after ended  worker:acked  pool:before run.final  ...
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import msgspec

import corral.pool
from corral import events
from corral.jetstream.connection import Connection
from corral.jetstream.publisher import Publisher, Window
from corral.jetstream.puller import Puller
from corral.runs import decode_record
from tests.chaos.work import Process, note, now
from tests.system.apps.cues import blocking_cue

CUES = "CORRAL_CHAOS_CUES"
CLOCK = "CORRAL_CHAOS_CLOCK"
BOTH_LEAD = "CORRAL_CHAOS_BOTH_LEAD"


class Cue(msgspec.Struct, frozen=True):
    """Announce it under this name when a process comes to `step` for the `nth` time."""

    name: str
    step: str
    nth: int


_cues: dict[str, list[Cue]] = {}
_reached: Counter[str] = Counter()
_role = ""


def install(role: str) -> None:
    """Wrap what this process runs."""
    global _role  # noqa: PLW0603  # a process has one
    if _role:
        return
    _role = role
    note(Process(role, os.getpid(), os.getppid(), now()))
    for cue in msgspec.json.decode(os.environ.get(CUES, "[]"), type=list[Cue]):
        if cue.step.partition(":")[0] == role:
            _cues.setdefault(cue.step.partition(":")[2], []).append(cue)
    _wrap_clock(float(os.environ.get(CLOCK, "0")))
    _wrap(Publisher, "store", _around_store)
    _wrap(Window, "settle", _around_settle)
    _wrap(Connection, "publish_to_all", _around_acks)
    _wrap_pulled()
    if os.environ.get(BOTH_LEAD):
        vars(corral.pool)["stand"] = _always_lead


def reach(step: str) -> None:
    """This process has come to a step."""
    for cue in _cues.get(step, ()):
        _reached[cue.name] += 1
        if _reached[cue.name] == cue.nth:
            blocking_cue(cue.name, step=step)


def _wrap(owner: type, name: str, wrapper: Callable[..., Awaitable[Any]]) -> None:
    original = getattr(owner, name)

    @wraps(original)
    async def wrapped(*args: Any, **options: Any) -> Any:
        return await wrapper(original, *args, **options)

    setattr(owner, name, wrapped)


async def _around_store(original: Any, publisher: Any, subject: str, payload: bytes, **options: Any) -> Any:
    step = _step_of(subject, payload, options) if _cues else ""
    reach(f"before {step}")
    result = await original(publisher, subject, payload, **options)
    reach(f"after {step}")
    return result


async def _around_settle(original: Any, window: Any) -> None:
    reach("before window")
    await original(window)
    reach("after window")


async def _around_acks(original: Any, connection: Any, subjects: Any, payload: bytes) -> None:
    await original(connection, subjects, payload)
    reach("acked")


def _step_of(subject: str, payload: bytes, options: dict[str, Any]) -> str:
    if subject.startswith("$KV."):
        kind = subject.split(".")[2]
        if options.get("headers"):
            return f"{kind} freed"
        return f"run.{decode_record(payload).state}" if kind == "run" else kind
    kind = subject.split(".")[1]
    return events.kind(events.decode_event(payload)) if kind == "event" else kind


def _wrap_pulled() -> None:
    original = Puller.__init__

    @wraps(original)
    def wrapped(*args: Any, on_delivery: Callable[[Any], None], **options: Any) -> None:
        def delivered(delivery: Any) -> None:
            reach("pulled")
            on_delivery(delivery)

        original(*args, on_delivery=delivered, **options)

    Puller.__init__ = wrapped  # type: ignore[method-assign]


def _wrap_clock(jump: float) -> None:
    """Let the time of day jump, some seconds from now."""
    if not jump:
        return
    real, real_ns, begun = time.time, time.time_ns, time.monotonic()

    def offset() -> float:
        return jump if time.monotonic() - begun > 3 else 0.0

    time.time = lambda: real() + offset()
    time.time_ns = lambda: real_ns() + int(offset() * 1e9)


async def _always_lead(
    _records: Any, _name: str, _lease: float, lead: Callable[[], Awaitable[None]], **_options: Any
) -> None:
    """Instead of an election: whoever stands, leads."""
    while True:
        try:
            await lead()
        except Exception as error:  # noqa: BLE001  # as after an election
            print(f"the bookkeeper failed, and stands again: {error!r}")

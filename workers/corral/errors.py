"""Every error that Corral raises: one root, each class named for the fact, with the fact in fields.

`Interrupted` and `Superseded` are BaseExceptions, so that a processor's `except Exception` does not
swallow the order to stop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec


class CorralError(Exception):
    """The root of Corral's errors."""


# --- what a user of the API gets ---------------------------------------------------------------


class BadName(CorralError):
    """A topic, run id, namespace or key that is not allowed; nothing was stored."""

    def __init__(self, kind: str, value: str, rule: str) -> None:
        super().__init__(kind, value, rule)
        self.kind = kind
        self.value = value
        self.rule = rule

    def __str__(self) -> str:
        shown = self.value if len(self.value) <= 80 else f"{self.value[:77]}..."
        return f"{shown!r} is not a {self.kind}: {self.rule}"


class BadMessage(CorralError):
    """A message that cannot be sent (not encodable, not JSON, too big); nothing was stored."""

    def __init__(self, topic: str, reason: str) -> None:
        super().__init__(topic, reason)
        self.topic = topic
        self.reason = reason

    def __str__(self) -> str:
        return f"a message for {self.topic!r} cannot be sent: {self.reason}"


class BadApp(CorralError):
    """An app whose declarations contradict each other, found when it is imported."""


class AppNotFound(CorralError):
    """The text after `corral up` or `corral pool` names no app."""

    def __init__(self, spec: str, reason: str) -> None:
        super().__init__(spec, reason)
        self.spec = spec
        self.reason = reason

    def __str__(self) -> str:
        return f"no app at {self.spec!r}: {self.reason}"


class DuplicateRun(CorralError):
    """The unique key is held by a run that has not ended; `.run_id` names it."""

    def __init__(self, key: str, run_id: str) -> None:
        super().__init__(key, run_id)
        self.key = key
        self.run_id = run_id

    def __str__(self) -> str:
        return f"the unique key {self.key!r} is held by run {self.run_id}"


class RunExists(CorralError):
    """This run id was used before, with another message."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"run {self.run_id} exists already, with another topic or message"


class RunNotFound(CorralError):
    """No run has this id, or its record has expired."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"there is no run {self.run_id!r}"


class AmbiguousRun(CorralError):
    """A prefix that fits more than one run."""

    def __init__(self, prefix: str, run_ids: Sequence[str]) -> None:
        super().__init__(prefix, run_ids)
        self.prefix = prefix
        self.run_ids = list(run_ids)

    def __str__(self) -> str:
        some = ", ".join(self.run_ids[:5])
        more = f" and {len(self.run_ids) - 5} more" if len(self.run_ids) > 5 else ""
        return f"{self.prefix!r} fits {len(self.run_ids)} runs: {some}{more}"


class WorkerNotFound(CorralError):
    """No living worker or pool has this id, or several begin so."""

    def __init__(self, name: str, fitting: Sequence[str] = ()) -> None:
        super().__init__(name, fitting)
        self.name = name
        self.fitting = list(fitting)

    def __str__(self) -> str:
        if not self.fitting:
            return f"no worker and no pool {self.name!r} is heard"
        some = ", ".join(self.fitting[:5])
        more = f" and {len(self.fitting) - 5} more" if len(self.fitting) > 5 else ""
        return f"{self.name!r} fits {len(self.fitting)} workers or pools: {some}{more}"


class NotEnded(CorralError):
    """A run that has not ended cannot be retried."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"run {self.run_id} has not ended: wait for its end, or interrupt it"


class TaskNotFound(CorralError):
    """The run has no such task, or none of such a topic; nothing was changed."""

    def __init__(self, run_id: str, what: str) -> None:
        super().__init__(run_id, what)
        self.run_id = run_id
        self.what = what

    def __str__(self) -> str:
        shown = self.what if len(self.what) <= 80 else f"{self.what[:77]}..."
        return f"run {self.run_id} has no {shown}"


class SelectionTooLarge(CorralError):
    """A selection of tasks that does not fit into the record of its run; nothing was changed."""

    def __init__(self, run_id: str, tasks: int) -> None:
        super().__init__(run_id, tasks)
        self.run_id = run_id
        self.tasks = tasks

    def __str__(self) -> str:
        return (
            f"{self.tasks:,} tasks of run {self.run_id} are scattered over more than its record can keep: "
            "retry fewer at once, or all that failed"
        )


class Unreadable(CorralError, msgspec.DecodeError):
    """Something stored or sent by others is not what it should be: damaged, forged, or of a newer version."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what = what
        self.reason = reason

    def __str__(self) -> str:
        reason = self.reason if len(self.reason) <= 200 else f"{self.reason[:197]}..."  # it may quote what was read
        return f"{self.what} cannot be read: {reason}"


class EventsExpired(CorralError):
    """The events asked for are no longer in the stream."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"the events of run {self.run_id} are gone (older than the stream keeps them)"


# --- what the server says or does not say --------------------------------------------------------


class NoServer(CorralError):
    """No server answered; `.tried` lists the addresses."""

    def __init__(self, tried: Sequence[str], reason: str) -> None:
        super().__init__(tried, reason)
        self.tried = list(tried)
        self.reason = reason

    def __str__(self) -> str:
        return f"no server at {', '.join(self.tried) or 'any known address'}: {self.reason}"


class PermissionDenied(CorralError):
    """The server refused an action for lack of rights."""

    def __init__(self, action: str, subject: str) -> None:
        super().__init__(action, subject)
        self.action = action
        self.subject = subject

    def __str__(self) -> str:
        return f"no permission to {self.action} {self.subject!r}" if self.subject else f"no permission to {self.action}"


# Incomplete, no peers, not assigned, not available, no leader; a stream or a consumer whose nodes are away.
_PASSING = frozenset({10004, 10005, 10007, 10008, 10009, 10118, 10119})


class ApiError(CorralError):
    """JetStream refused a request; `.code` is its `err_code`."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(code, description)
        self.code = code
        self.description = description

    @property
    def passes(self) -> bool:
        """Whether it is due to a cluster that misses a node or a leader at the moment."""
        return self.code in _PASSING

    def __str__(self) -> str:
        return f"the server refused: {self.description} ({self.code})"


class NoResponder(CorralError):
    """Nobody listens on this subject."""

    def __init__(self, subject: str) -> None:
        super().__init__(subject)
        self.subject = subject

    def __str__(self) -> str:
        return f"nobody answers on {self.subject!r}"


class Unconfirmed(CorralError):
    """No answer in time: what was asked may or may not have happened."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"not known whether this happened: {self.what}"


class TooLarge(CorralError):
    """More bytes than the server takes in one message."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.size:,} bytes are more than the limit of {self.limit:,}"


class StorageFull(CorralError):
    """A stream or the server has no room; nothing was stored."""

    def __init__(self, stream: str, description: str) -> None:
        super().__init__(stream, description)
        self.stream = stream
        self.description = description

    def __str__(self) -> str:
        return f"{self.stream or 'the server'} is full: {self.description}"


class Misconfigured(CorralError):
    """A stream or consumer that exists in a form that Corral cannot work with, and that the server cannot change."""

    def __init__(self, what: str, differences: Sequence[str]) -> None:
        super().__init__(what, differences)
        self.what = what
        self.differences = list(differences)

    def __str__(self) -> str:
        return f"{self.what} cannot be used: {'; '.join(self.differences)}"


class Conflict(CorralError):
    """A compare-and-set was lost: somebody else wrote the key first."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key!r} was changed by somebody else"


class WrongLastSequence(CorralError):
    """An append was refused: the subject's last message is not the expected one."""

    def __init__(self, subject: str) -> None:
        super().__init__(subject)
        self.subject = subject

    def __str__(self) -> str:
        return f"{self.subject!r} has grown since it was read"


class ServerStartFailed(CorralError):
    """The embedded server did not start."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the embedded server did not start: {self.reason}"


class AlreadyRunning(CorralError):
    """An embedded server already uses this folder."""

    def __init__(self, home: str) -> None:
        super().__init__(home)
        self.home = home

    def __str__(self) -> str:
        return f"an embedded server already runs in {self.home}"


# --- what a processor raises, or gets raised into it ----------------------------------------------


class Reject(CorralError):
    """Raised by a processor: this message can never succeed. The task ends as error at once."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return self.why


class Requeue(CorralError):
    """Raised by a processor: process this message again in `delay` seconds; no attempt is spent."""

    def __init__(self, delay: float = 0.0) -> None:
        if not (math.isfinite(delay) and delay >= 0):
            raise ValueError(f"a delay is a number of seconds, and not negative: {delay}")
        super().__init__(delay)
        self.delay = delay

    def __str__(self) -> str:
        return f"again in {self.delay} s"


class ContentChanged(CorralError):
    """A dispatcher that a retry runs again sends other messages than those that it is to bring back."""

    def __str__(self) -> str:
        return "it sends other messages than before, so those that a retry is to bring back cannot be found again"


class Interrupted(BaseException):
    """The run is ordered to stop. Raised by `Context.check` and `Context.send`."""


class Superseded(BaseException):
    """Another execution of this task has taken over its fan-out; this one stops without a word."""

"""The exit codes, and what is said when a command cannot do what it was asked: a sentence, and what helps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from corral import errors
from corral.cli.output import CannotWrite
from corral.errors import CorralError
from corral.runs import RunStatus

DONE = 0
FAILED = 1
"""The run that was waited for ended with errors, or counts do not agree."""
WRONG = 2
"""The command, a message, a name, a run or an app; nothing was stored."""
REFUSED = 3
"""The unique key is held by another run."""
NO_SERVER = 4
"""None, no permission, or no room on it."""
INTERRUPTED = 5
"""The run that was waited for was interrupted."""
UNKNOWN = 6
"""Nobody can say (yet): no confirmation, a timeout, events that have expired."""
BUG = 70
NO_OUTPUT = 74
"""Standard output cannot be written."""
CTRL_C = 130
READER_GONE = 141
"""Whoever read our output has stopped reading; what a shell reports of any program then."""

_JETSTREAM_OFF = (10039, 10076)


class Wrong(CorralError):
    """What was asked makes no sense; nothing was stored."""


class TimedOut(CorralError):
    """`--timeout` passed before what was waited for happened."""

    def __init__(self, seconds: float, what: str) -> None:
        super().__init__(seconds, what)
        self.seconds = seconds
        self.what = what

    def __str__(self) -> str:
        return f"{self.seconds:g} s have passed, and {self.what}"


class Explained(NamedTuple):
    """How a command ends because of an error."""

    code: int
    advice: Sequence[str] = ()


def explain(error: CorralError) -> Explained | None:  # noqa: C901, PLR0911  # one for each kind
    """The exit code of an error and what helps against it; None for what must never reach a user."""
    match error:
        case errors.DuplicateRun(run_id=holder):
            return Explained(
                REFUSED, [f"`corral show {holder}` looks at that run, `corral interrupt {holder}` stops it."]
            )
        case errors.NoServer() | errors.PermissionDenied() | errors.NoResponder() | errors.ApiError():
            return Explained(NO_SERVER, _about_server(error))
        case errors.ServerStartFailed() | errors.StorageFull() | errors.Misconfigured():
            return Explained(NO_SERVER, _about_server(error))
        case errors.Unconfirmed() | errors.EventsExpired() | TimedOut():
            return Explained(UNKNOWN)
        case errors.Unreadable():
            return Explained(UNKNOWN, ["Was it stored by a newer version? `corral --version` says which one this is."])
        case CannotWrite():
            return Explained(NO_OUTPUT)
        case (
            errors.RunNotFound()
            | errors.AmbiguousRun()
            | errors.NotEnded()
            | errors.TaskNotFound()
            | errors.WorkerNotFound()
        ):
            return Explained(WRONG, _about_name(error))
        case errors.AlreadyRunning():
            return Explained(WRONG, ["All other commands find it by themselves: there is nothing to start."])
        case errors.AppNotFound():
            return Explained(
                WRONG, ["APP is a module, module:attribute or file.py, looked up from the current folder."]
            )
        case (
            errors.BadName()
            | errors.BadMessage()
            | errors.BadApp()
            | errors.RunExists()
            | errors.TooLarge()
            | errors.SelectionTooLarge()
            | Wrong()
        ):
            return Explained(WRONG)
        case _:
            return None


def _about_name(error: CorralError) -> Sequence[str]:
    match error:
        case errors.RunNotFound():
            return ["`corral runs` lists the runs. Is it the right server and namespace? `corral env` says."]
        case errors.AmbiguousRun():
            return ["Give more of the id."]
        case errors.WorkerNotFound():
            return ["`corral workers` lists workers and pools. Runs are stopped by `corral interrupt`."]
        case errors.TaskNotFound(run_id=run):
            return [f"`corral errors {run}` lists the tasks that ended as error, `corral show {run}` the topics."]
        case errors.NotEnded(run_id=live):
            return [f"`corral show {live} --follow` waits for its end, `corral interrupt {live} --wait` stops it."]
        case _:
            return []


def _about_server(error: CorralError) -> Sequence[str]:  # noqa: PLR0911  # one for each kind
    match error:
        case errors.NoServer(reason=reason) if "certificate" in reason or "TLS" in reason:
            return ["Who signed the server's certificate is said with --context FILE, or in NATS_CA."]
        case errors.NoServer():
            return [
                "`corral up app.py` starts a server, workers and the dashboard; `corral server` a server alone.",
                "A server that runs elsewhere is named with --server nats://HOST:4222, or in NATS_URL.",
            ]
        case errors.PermissionDenied():
            return _about_rights(error)
        case errors.NoResponder():
            return ["Is JetStream switched on there? `nats-server -js` does, and `jetstream {}` in its configuration."]
        case errors.ApiError(code=code) if code in _JETSTREAM_OFF:
            return ["JetStream is switched off there: `nats-server -js` switches it on, or `jetstream {}` in its file."]
        case errors.StorageFull(stream=stream):
            return _about_room(stream)
        case errors.Misconfigured(what=what):
            return [f"Have {what} deleted, with what it holds, or choose another namespace with -n."]
        case _:
            return []


def _about_rights(error: errors.PermissionDenied) -> Sequence[str]:
    who = "`corral env` says which login is used, and why."
    if error.subject:
        return [f"The server does not allow that to this user; another login may be allowed to. {who}"]
    return [
        "A login is given with --context FILE or --creds FILE, in NATS_CREDS, NATS_USER and NATS_PASSWORD and so on,",
        f"or in the address: nats://USER:PASSWORD@HOST:4222. {who}",
    ]


def _about_room(stream: str) -> Sequence[str]:
    advice = ["Try again when work is done and has made room. `corral interrupt RUN` makes room at once."]
    for ending, setting in (("_TASKS", "TASKS"), ("_EVENTS", "EVENTS"), ("_RUNS", "RUNS")):
        if stream.endswith(ending):
            advice.append(f"A higher CORRAL_{setting}_MAX_BYTES takes effect when a pool starts with it.")
    return [*advice, "The server's own limit is `max_file` in its configuration."]


def code_of(status: RunStatus) -> int:
    """The exit code that says how a run ended."""
    match status.status:
        case "success":
            return DONE
        case "interrupted":
            return INTERRUPTED
        case _:
            return FAILED

"""Corral: many message processors in parallel on NATS JetStream, counted exactly.

from corral import App, Client, Context, Reject, Topic
"""

from importlib.metadata import version as _version

__version__ = _version("corral")

from corral.client import Client, StoredEvent
from corral.context import Context, SyncContext
from corral.credentials import Login
from corral.errors import (
    AmbiguousRun,
    BadApp,
    BadMessage,
    BadName,
    CorralError,
    DuplicateRun,
    EventsExpired,
    Interrupted,
    NoServer,
    PermissionDenied,
    Reject,
    Requeue,
    RunExists,
    RunNotFound,
    StorageFull,
    TaskNotFound,
    Unconfirmed,
)
from corral.events import Receipt
from corral.ledger import Counts
from corral.operations import Run
from corral.processor import App, Processor, Topic
from corral.runs import RunStatus, TaskError, TopicStatus, WorkerStatus
from corral.settings import Settings
from corral.sync import SyncClient

__all__ = [  # noqa: RUF022  # grouped by concept
    # declare
    "App",
    "Topic",
    "Processor",
    "Context",
    "SyncContext",
    "Reject",
    "Requeue",
    "Interrupted",
    # start, look, stop
    "Client",
    "SyncClient",
    "Login",
    "Run",
    "RunStatus",
    "Counts",
    "Receipt",
    "TaskError",
    "StoredEvent",
    "TopicStatus",
    "WorkerStatus",
    "Settings",
    # what can go wrong
    "CorralError",
    "AmbiguousRun",
    "BadApp",
    "BadMessage",
    "BadName",
    "DuplicateRun",
    "EventsExpired",
    "NoServer",
    "PermissionDenied",
    "RunExists",
    "RunNotFound",
    "StorageFull",
    "TaskNotFound",
    "Unconfirmed",
    "__version__",
]

"""Names on the wire: what may be a topic, a run id, a namespace or a key, and every subject made of them.

Subjects are built here and nowhere else, from names that were checked: the client library lets
wildcards through in publish subjects, and a purge of run `*` would hit every run.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

from corral.errors import BadName

_TOPIC = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_RUN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY = re.compile(r"[A-Za-z0-9_/=+-]+(\.[A-Za-z0-9_/=+-]+)*")
_NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,32}")
TOPIC_LIMIT = 128
KEY_LIMIT = 1024
REASON_LIMIT = 4096


@lru_cache(maxsize=4096)
def check_topic(topic: str) -> str:
    """`topic` itself; BadName if it is not one."""
    if len(topic) > TOPIC_LIMIT or not _TOPIC.fullmatch(topic):
        raise BadName("topic", topic, f"a-z, 0-9, _ and -, in parts joined by dots, at most {TOPIC_LIMIT} characters")
    return topic


def check_run_id(run_id: str) -> str:
    """`run_id` itself; BadName if it is not one."""
    if not _RUN.fullmatch(run_id):
        raise BadName("run id", run_id, "letters, digits, _ and -, at most 64")
    return run_id


def is_topic(text: str) -> bool:
    """Whether `text` may be a topic."""
    return len(text) <= TOPIC_LIMIT and _TOPIC.fullmatch(text) is not None


def is_run_id(text: str) -> bool:
    """Whether `text` may be a run's id. What comes in a subject may be anything, `*` included."""
    return _RUN.fullmatch(text) is not None


def is_key(text: str) -> bool:
    """Whether `text` may be a key of the bucket: one, and not a pattern that fits many."""
    return _KEY.fullmatch(text) is not None


def run_and_kind(subject: str) -> tuple[str, str]:
    """Of which run the events on a subject are, and of what kind; empty where it does not say that."""
    _, _, run_id, kind, *_ = [*subject.split(".", 4), "", "", "", ""]
    return run_id, kind


def holder_of(value: bytes) -> str:
    """The run that a unique key's value names, as it stands there; what is no text names none."""
    return value.decode(errors="replace")


def check_namespace(namespace: str) -> str:
    """`namespace` itself; BadName if it is not one."""
    if not _NAMESPACE.fullmatch(namespace):
        raise BadName("namespace", namespace, "letters, digits, _ and -, at most 32")
    return namespace


def check_key(key: str) -> str:
    """`key` itself; BadName if it is no text, empty, too long or not encodable."""
    if not isinstance(key, str):  # a function of the user's makes it
        raise BadName("unique key", repr(key), f"text, and this is of type {type(key).__name__}")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise BadName("unique key", key, "text that can be encoded as UTF-8") from None
    if not 0 < size <= KEY_LIMIT:
        raise BadName("unique key", key, f"1 to {KEY_LIMIT:,} bytes of text")
    return key


def check_reason(reason: str | None) -> str | None:
    """`reason` itself; BadName if it is too long or not encodable."""
    try:
        size = len((reason or "").encode())
    except (UnicodeEncodeError, AttributeError):
        raise BadName("reason", reason or "", "text that can be encoded as UTF-8") from None
    if size > REASON_LIMIT:
        raise BadName("reason", reason or "", f"at most {REASON_LIMIT:,} bytes of text")
    return reason


def key_hash(key: str) -> str:
    """A unique key as one subject token: any text, of fixed size."""
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Names:
    """The streams, subjects and keys of one namespace."""

    namespace: str = "corral"

    def __post_init__(self) -> None:
        check_namespace(self.namespace)

    # --- streams
    @property
    def tasks_stream(self) -> str:
        return f"{self.namespace}_TASKS"

    @property
    def events_stream(self) -> str:
        return f"{self.namespace}_EVENTS"

    @property
    def bucket(self) -> str:
        return f"{self.namespace}_RUNS"

    @property
    def bucket_stream(self) -> str:
        return f"KV_{self.namespace}_RUNS"

    # --- tasks: the topic stands last because it may contain dots
    def task(self, run_id: str, topic: str) -> str:
        return f"{self.namespace}.task.{run_id}.{topic}"

    def task_filter(self, topic: str) -> str:
        return f"{self.namespace}.task.*.{topic}"

    def run_tasks(self, run_id: str) -> str:
        return f"{self.namespace}.task.{run_id}.>"

    @property
    def all_tasks(self) -> str:
        return f"{self.namespace}.task.>"

    def split_task(self, subject: str) -> tuple[str, str]:
        """(run id, topic) of a task's subject; either may be anything, or empty."""
        _, _, run_id, topic, *_ = [*subject.split(".", 3), "", "", ""]
        return run_id, topic

    def consumer(self, topic: str) -> str:
        """Durable name of a topic's consumer. Names take no dots, and a topic has no `+`."""
        return topic.replace(".", "+")

    # --- events
    def event(self, run_id: str, kind: str) -> str:
        return f"{self.namespace}.event.{run_id}.{kind}"

    def dispatch_log(self, run_id: str, batch: int, ordinal: int) -> str:
        """The subject to which one dispatcher appends what it opens and sends."""
        return f"{self.namespace}.event.{run_id}.dispatch.{batch}-{ordinal}"

    def dispatch_logs(self, run_id: str) -> str:
        """The logs of all dispatchers of a run."""
        return f"{self.namespace}.event.{run_id}.dispatch.*"

    def run_events(self, run_id: str) -> str:
        return f"{self.namespace}.event.{run_id}.>"

    @property
    def all_events(self) -> str:
        return f"{self.namespace}.event.>"

    def run_of_event(self, subject: str) -> str:
        return run_and_kind(subject)[0]

    # --- keys
    def key(self, key: str) -> str:
        """The subject that holds a key of the bucket."""
        return f"$KV.{self.bucket}.{key}"

    def key_of(self, subject: str) -> str:
        """The key that a subject of the bucket holds."""
        return subject.split(".", 2)[2]

    # --- core NATS
    def beat(self, worker: str) -> str:
        return f"{self.namespace}.beat.{worker}"

    @property
    def all_beats(self) -> str:
        return f"{self.namespace}.beat.*"

    def control(self, what: str) -> str:
        return f"{self.namespace}.control.{what}"


def run_key(run_id: str) -> str:
    return f"run.{run_id}"


def interrupt_key(run_id: str) -> str:
    return f"interrupt.{run_id}"


def unique_key(key: str) -> str:
    return f"unique.{key_hash(key)}"


def topic_key(topic: str) -> str:
    return f"topic.{topic}"


def ledger_key(run_id: str) -> str:
    return f"{LEDGER_KEYS}.run.{run_id}"


def ledger_part_key(run_id: str, token: str, number: int) -> str:
    return f"{LEDGER_KEYS}.part.{run_id}.{token}.{number}"


WORKER_KINDS = ("dispatch.>", "ended", "retrying", "failed", "crashed")
"""The kinds of events that workers and pools store; the rest is for those who give orders, and for bookkeepers."""
INTERRUPTED_KIND = "interrupted"
REOPENED_KIND = "reopened"
LEADER_KEY = "leader"
LEDGER_KEYS = "ledger"
LEDGER_ANCHOR_KEY = "ledger.anchor"

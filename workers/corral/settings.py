"""All that can be tuned, with its unit and default. Seconds are floats, bytes are ints."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from corral.errors import BadName
from corral.subjects import check_namespace

_GIB = 1024**3
_DAY = 86_400.0
_LONGEST = 36_525 * _DAY
_LARGEST = 2**53
"""What servers and other languages can still count."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Read from the environment by `from_env`: `ack_wait` is `CORRAL_ACK_WAIT`, and so on.

    All pools and clients of a namespace should use the same values.
    """

    namespace: str = "corral"

    ack_wait: float = 15.0
    """Seconds after which the server gives a task of a silent worker to another one."""
    beat: float = 1.0
    """Seconds between two heartbeats of a worker."""
    death: float = 5.0
    """Seconds without a heartbeat after which a worker is taken for dead."""
    lease: float = 3.0
    """Seconds that the bookkeeper's lease lasts; renewed three times as often."""
    publish_timeout: float = 10.0
    """Seconds to wait for the server to confirm that something is stored."""
    reconcile: float = 30.0
    """Seconds without any movement after which open tasks with no message left end as `Lost`."""
    drain_timeout: float = 30.0
    """Seconds that a stopping worker waits for what it runs, before it hands it back."""

    blocked_limit: float = 300.0
    """Seconds for which a processor may block its worker's loop, before the pool replaces the worker."""
    kill_grace: float = 5.0
    """Seconds that an isolated task has to stop before its process is killed."""

    window: int = 2_000
    """Messages of a fan-out that are confirmed together."""
    window_delay: float = 0.05
    """Seconds after which a smaller window is confirmed, so that a slow dispatcher is counted live."""
    record_interval: float = 0.1
    """Seconds between two writes of a run's record."""

    checkpoint_interval: float = 10.0
    """Seconds between two checkpoints of the bookkeeper: what its successor must fold at most."""

    threads: int = 8
    """Sync tasks that a worker runs at once, where the processor does not say."""
    tasks_max_bytes: int = 4 * _GIB
    events_max_bytes: int = 4 * _GIB
    runs_max_bytes: int = 1 * _GIB
    events_max_age: float = 7 * _DAY
    """Seconds for which the events of a run are kept."""
    retention: float = 7 * _DAY
    """Seconds for which the record of an ended run is kept."""
    replicas: int = 1
    """Copies of each stream; 3 on a cluster."""

    def __post_init__(self) -> None:
        check_namespace(self.namespace)
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name == "namespace":
                continue
            if name != "drain_timeout" and not value > 0:
                raise BadName("setting", f"{name}={value}", "more than 0")
            if not abs(value) <= (_LONGEST if isinstance(value, float) else _LARGEST):
                raise BadName("setting", f"{name}={value}", "at most a hundred years, or 8 PiB")
        if self.death <= self.beat:
            raise BadName("setting", f"death={self.death}", "more than `beat`, or every worker would be taken for dead")

    def shared(self) -> dict[str, float]:
        """What all pools of a namespace should agree on, as far as it is not the default."""
        return {name: getattr(self, name) for name in SHARED if getattr(self, name) != getattr(_DEFAULT, name)}

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
        """Defaults, then `CORRAL_<FIELD>` of the environment, then `overrides` that are not None.

        Raises:
            BadName: a value that is not of its field's type.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, object] = {}
        for name in cls.__struct_fields__:
            text = environ.get(f"CORRAL_{name.upper()}")
            if text:
                values[name] = text
        values.update({name: value for name, value in overrides.items() if value is not None})
        try:
            return msgspec.convert(values, cls, strict=False)
        except (msgspec.ValidationError, UnicodeError) as error:
            reason, _, name = str(error).partition(" - at `$.")
            name = name.rstrip("`")
            raise BadName("setting", f"{name}={values.get(name)}" if name else str(values), reason) from None


SHARED = (
    "ack_wait",
    "beat",
    "death",
    "lease",
    "reconcile",
    "events_max_age",
    "retention",
)
"""Settings that must be alike wherever work is done: what one worker says by them, others judge by them."""
_DEFAULT = Settings()

"""Who may do what on a secured server: a table of roles, and the server's configuration made of it.

Each role has an account of its own, which reaches the account that holds the streams only through the subjects named
here. Permissions alone would not do: whoever may ask JetStream for anything may name any subject for the reply, and the
server would publish there in its own name. A reply stays within the account of who asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from corral.credentials import API_PREFIX
from corral.subjects import INTERRUPTED_KIND, REOPENED_KIND, WORKER_KINDS, Names

ACCOUNT = "CORRAL"
"""The account that holds the streams, and the bookkeeper."""
BOOKKEEPER = "bookkeeper"
ROLE_API = "CORRAL.API"
"""Where the roles reach JetStream: under its own name their accounts would answer that they have none."""
START, STATUS = "start", "status"
"""The control subjects on which the bookkeeper starts runs for producers, and tells how they stand."""
LEAVE = "leave"
"""The control subject on which pools are told that they, or workers of theirs, are to leave."""


class Role(NamedTuple):
    """What a role may do, beyond receiving the replies to what it asks."""

    calls: tuple[str, ...]
    """Of JetStream's API."""
    publishes: tuple[str, ...] = ()
    """To the account of the streams."""
    tells: tuple[str, ...] = ()
    """To whoever listens."""
    hears: tuple[str, ...] = ()
    """Of what others tell."""


def roles(names: Names) -> dict[str, Role]:
    """The table. A subject that is not in it is out of reach."""
    tasks, events, bucket = names.tasks_stream, names.events_stream, names.bucket_stream
    state = (*(f"STREAM.INFO.{stream}" for stream in (tasks, events, bucket)), f"CONSUMER.LIST.{tasks}")
    run_keys = (names.key("run.*"), names.key("unique.*"))
    # Without consumers: who makes one says under which subject it delivers, and could fill other streams with copies.
    look = (
        *state,
        *_asks(events, names.all_events),
        *_asks(bucket, names.key(">")),
        f"STREAM.MSG.GET.{bucket}",
    )
    return {
        "producer": Role(calls=(), publishes=(names.control(START), names.control(STATUS))),
        "worker": Role(
            calls=(
                *look,
                *_follows(events, names.all_events),
                *_follows(bucket, names.key(">")),
                f"CONSUMER.INFO.{tasks}.*",
                f"CONSUMER.CREATE.{tasks}.*.{names.all_tasks}",
                f"CONSUMER.MSG.NEXT.{tasks}.*",
            ),
            publishes=(
                names.all_tasks,
                *(names.event("*", kind) for kind in WORKER_KINDS),
                *run_keys,
                names.key("topic.>"),
                names.control("ask"),
                f"$JS.ACK.{tasks}.>",
            ),
            tells=(names.all_beats,),
            hears=(names.all_beats, names.control("beat"), names.control(LEAVE)),
        ),
        "operator": Role(
            calls=(
                *look,
                f"STREAM.MSG.GET.{tasks}",
                f"STREAM.PURGE.{tasks}",
                f"STREAM.MSG.DELETE.{tasks}",
                f"CONSUMER.PAUSE.{tasks}.*",
            ),
            publishes=(
                names.all_tasks,
                names.event("*", INTERRUPTED_KIND),
                names.event("*", REOPENED_KIND),
                *run_keys,
                names.key("interrupt.*"),
            ),
            tells=(names.control("beat"), names.control(LEAVE)),
            hears=(names.all_beats,),
        ),
        "viewer": Role(calls=look, tells=(names.control("beat"),), hears=(names.all_beats,)),
    }


def _asks(stream: str, subjects: str) -> tuple[str, ...]:
    """Reading a stream by direct get."""
    return (f"DIRECT.GET.{stream}", f"DIRECT.GET.{stream}.{subjects}")


def _follows(stream: str, subjects: str) -> tuple[str, ...]:
    """Reading a stream through short-lived consumers: what comes is known at once."""
    return (
        f"CONSUMER.CREATE.{stream}.*.{subjects}",
        f"CONSUMER.MSG.NEXT.{stream}.*",
        f"CONSUMER.DELETE.{stream}.*",
    )


def inbox(role: str) -> str:
    """Where a role receives replies, and nobody else."""
    return f"_INBOX_{role}"


def configuration(names: Names, passwords: Mapping[str, str]) -> str:
    """The accounts, as the server reads them. `passwords` are those of all roles and of the bookkeeper."""
    table = roles(names)
    accounts = "\n".join(_account(role, table, passwords[role]) for role in table)
    return f"""\
# Who may do what in the namespace {names.namespace}. Made by `corral server --secure`, which keeps what is here: delete
# this file to have it made anew, with the passwords that are in the files of the roles.
accounts {{
  {ACCOUNT} {{
    jetstream: enabled
    users: [{{ user: "{BOOKKEEPER}", password: "{passwords[BOOKKEEPER]}" }}]
    exports: [
{_lines(_exports(table))}
    ]
    imports: [
{_lines(_heard((names.all_beats, names.control("beat"), names.control(LEAVE)), BOOKKEEPER, table))}
    ]
  }}
{accounts}
}}
"""


def _account(role: str, table: Mapping[str, Role], password: str) -> str:
    rights = table[role]
    publish = [*(f"{ROLE_API}.{call}" for call in rights.calls), *rights.publishes, *rights.tells]
    hear = [f"{inbox(role)}.>", *rights.hears]
    return f"""\
  {_account_of(role)} {{
    users: [{{ user: "{role}", password: "{password}", permissions: {{
      publish: {{ allow: [{_listed(publish)}] }}
      subscribe: {{ allow: [{_listed(hear)}] }}
    }} }}]
    exports: [
{_lines(f'{{ stream: "{subject}" }}' for subject in rights.tells)}
    ]
    imports: [
{_lines(_imports(role, table))}
    ]
  }}"""


def _exports(table: Mapping[str, Role]) -> Iterator[str]:
    """What the account of the streams does for the others."""
    services: dict[str, list[str]] = {}
    for role, rights in table.items():
        for subject in (*(f"{API_PREFIX}.{call}" for call in rights.calls), *rights.publishes):
            services.setdefault(subject, []).append(_account_of(role))
    for subject, accounts in services.items():
        # What is answered by more than one message: pulls, and reading many messages at once.
        call = subject.removeprefix(f"{API_PREFIX}.")
        many = call.startswith("CONSUMER.MSG.NEXT.") or (call.startswith("DIRECT.GET.") and call.count(".") == 2)
        # A pull lasts half a minute; the way back for its replies has to last longer.
        kind = ', response_type: stream, response_threshold: "60s"' if many else ""
        yield f'{{ service: "{subject}", accounts: [{", ".join(accounts)}]{kind} }}'


def _imports(role: str, table: Mapping[str, Role]) -> Iterator[str]:
    rights = table[role]
    for call in rights.calls:
        yield f'{{ service: {{ account: {ACCOUNT}, subject: "{API_PREFIX}.{call}" }}, to: "{ROLE_API}.{call}" }}'
    for subject in rights.publishes:
        yield f'{{ service: {{ account: {ACCOUNT}, subject: "{subject}" }} }}'
    yield from _heard(rights.hears, role, table)


def _heard(subjects: tuple[str, ...], role: str, table: Mapping[str, Role]) -> Iterator[str]:
    """What the others tell. A message that reaches an account as a service goes no further, hence from each itself."""
    for other, rights in table.items():
        for subject in rights.tells:
            if subject in subjects and other != role:
                yield f'{{ stream: {{ account: {_account_of(other)}, subject: "{subject}" }} }}'


def _account_of(role: str) -> str:
    return f"{ACCOUNT}_{role.upper()}"


def _listed(subjects: list[str]) -> str:
    return ", ".join(f'"{subject}"' for subject in subjects)


def _lines(entries: Iterator[str]) -> str:
    return "\n".join(f"      {entry}" for entry in entries)

"""Unique keys that are made by a template of a message's fields, such as `{target_class}/{target_id}`.

A worker, or a client with the app, makes the key of the message itself (`render`). Who has only the message's JSON, as
the command line has, must come to the same key or to none: JSON can be written in several ways (7 and 7.0, upper and
lower case), and fields can be left out. So a pool publishes with the template what kind of value each field has and
what it is by default (`describe`), and each value is decoded as the worker will decode it (`render_json`). Where that
does not tell for certain, the key is left to the worker.
"""

from __future__ import annotations

import datetime as dt
import decimal
import string
import uuid
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

import msgspec
from msgspec import inspect

from corral.decoding import decoder

KINDS: dict[str, Any] = {
    "any": Any,
    "str": str,
    "int": int,
    "bool": bool,
    "float": float,
    "datetime": dt.datetime,
    "date": dt.date,
    "time": dt.time,
    "timedelta": dt.timedelta,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
}
"""What a field is decoded as, by the name that is published; `any` is what its JSON says."""
_KIND_OF: dict[type[inspect.Type], str] = {
    inspect.AnyType: "any",
    inspect.NoneType: "any",
    inspect.LiteralType: "any",
    inspect.StrType: "str",
    inspect.IntType: "int",
    inspect.BoolType: "bool",
    inspect.FloatType: "float",
    inspect.DateTimeType: "datetime",
    inspect.DateType: "date",
    inspect.TimeType: "time",
    inspect.TimeDeltaType: "timedelta",
    inspect.UUIDType: "uuid",
    inspect.DecimalType: "decimal",
}
_AS_WRITTEN = ("any", "str", "int", "bool")
"""Kinds whose values are what their JSON says, so that one of several of them is, too."""
_WithFields = inspect.StructType | inspect.DataclassType | inspect.TypedDictType | inspect.NamedTupleType


class KeyField(msgspec.Struct, frozen=True, omit_defaults=True):
    """A field of a template."""

    kind: str
    default: str | None = None
    """How it is rendered where the message leaves it out; None if that makes no key."""


class TopicRecord(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is stored under `topic.<topic>`: what pools say about the topic that they serve."""

    topic: str
    unique: str | None = None
    """The template of the unique key; None where there is none, or where the message's JSON does not tell it."""
    fields: dict[str, KeyField] = {}
    """The fields of the template, so that who has only the JSON makes the same key of it as a worker."""
    computed: bool = False
    """There is a unique key, and only a worker or a client with the app can tell it."""


def fields_of(template: str) -> list[str]:
    """The field paths in a template; ValueError for one that has other than plain fields."""
    return [name for _, name in _parts(template) if name is not None]


def _parts(template: str) -> Iterator[tuple[str, str | None]]:
    """(literal text, path of the field behind it), the last one perhaps without a field."""
    for literal, name, spec, conversion in string.Formatter().parse(template):
        if name is not None and (not all(part.isidentifier() for part in name.split(".")) or spec or conversion):
            raise ValueError(f"{{{name}}} is not a field: only names, and dots between them")
        yield literal, name


# --- of a message -----------------------------------------------------------------------------------


def render(template: str, message: object) -> str:
    """The key of a message; KeyError names a field that it does not have."""
    out = []
    for literal, name in _parts(template):
        out.append(literal)
        if name is not None:
            value = message
            for part in name.split("."):
                value = _field(value, part, name)
            out.append(_text(value))
    return "".join(out)


def _field(value: object, part: str, name: str) -> object:
    """A field by the name that it has in JSON."""
    if isinstance(value, msgspec.Struct) and part in value.__struct_encode_fields__:
        # Looked up here, because a struct may leave its defaults out of what it is encoded to.
        found = getattr(value, value.__struct_fields__[value.__struct_encode_fields__.index(part)])
    else:
        plain = value if isinstance(value, Mapping) else msgspec.to_builtins(value)
        found = plain.get(part, msgspec.UNSET) if isinstance(plain, Mapping) else msgspec.UNSET
    if found is msgspec.UNSET:
        raise KeyError(name)
    return found


def _text(value: object) -> str:
    plain = msgspec.to_builtins(value)
    return plain if isinstance(plain, str) else msgspec.json.encode(plain).decode()


# --- of a message's JSON ----------------------------------------------------------------------------


def render_json(template: str, fields: Mapping[str, KeyField], body: bytes) -> str | None:
    """The key that `render` makes of the message in `body`; None where that cannot be told from here."""
    out = []
    for literal, name in _parts(template):
        out.append(literal)
        if name is not None:
            field = fields.get(name)
            text = None if field is None else _text_of_json(field, name, body)
            if text is None:
                return None
            out.append(text)
    return "".join(out)


def _text_of_json(field: KeyField, name: str, body: bytes) -> str | None:
    if field.kind not in KINDS:
        return None  # published by a newer version
    *way, last = name.split(".")
    value: Any = msgspec.Raw(body)
    try:
        for part in way:
            value = msgspec.json.decode(value, type=dict[str, msgspec.Raw])[part]
        value = msgspec.json.decode(value, type=dict[str, msgspec.Raw]).get(last)
        return field.default if value is None else _text(msgspec.json.decode(value, type=KINDS[field.kind]))
    except (KeyError, ValueError, OverflowError, RecursionError):
        return None  # a message of the wrong shape, which ends as error when it is decoded


# --- of a type --------------------------------------------------------------------------------------


def check_template(template: str, type: Any) -> None:
    """ValueError says what is wrong with a template for messages of a type."""
    names = fields_of(template)
    if not names:
        raise ValueError("it names no field of the message, so it is the same for all")
    try:
        info = inspect.type_info(type)
    except TypeError:
        return
    for name in names:
        _resolve(info, name)


def describe(template: str, type: Any) -> dict[str, KeyField] | None:
    """What is published of each field; None if only the message itself tells the key."""
    try:
        info = inspect.type_info(type)
    except TypeError:
        return None
    found = {}
    for name in fields_of(template):
        where, default = _resolve(info, name)
        kind = None if where is None else _kind(where)
        if kind is None:
            return None
        found[name] = KeyField(kind, default)
    return found


def _resolve(info: inspect.Type, name: str) -> tuple[inspect.Type | None, str | None]:
    """The type of a field and its default as text; no type if its JSON does not tell its value.

    Raises:
        ValueError: there is no such field.
    """
    default: str | None = None
    for part in name.split("."):
        default = None
        match info:
            case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType() | inspect.NamedTupleType():
                field = _declared(info, part, name)
                if hasattr(info.cls, "__post_init__"):
                    return None, None  # which may change the field
                default = _default(field)
                info = field.type
            case inspect.DictType(key_type=inspect.StrType() | inspect.AnyType()):
                info = info.value_type
            case inspect.AnyType():
                pass
            case _:
                return None, None
    return info, default


def _declared(info: _WithFields, part: str, name: str) -> inspect.Field:
    known = {field.encode_name: field for field in info.fields}
    if part not in known:
        raise ValueError(f"the message has no field {name!r}; it has {', '.join(sorted(known))}")
    return known[part]


def _default(field: inspect.Field) -> str | None:
    """None also where a function makes it, which may make another one each time."""
    if field.required or field.default is msgspec.NODEFAULT:
        return None
    try:
        return _text(field.default)
    except (TypeError, ValueError):
        return None


def _kind(info: inspect.Type) -> str | None:
    match info:
        case inspect.Metadata(type=inner):
            return _kind(inner)
        case inspect.EnumType(cls=cls):
            return "any" if _is_plain(cls) else None
        case inspect.UnionType(types=types):
            return "any" if all(_kind(each) in _AS_WRITTEN for each in types) else None
        case _:
            return _KIND_OF.get(type(info))


def _is_plain(cls: type[Enum]) -> bool:
    """Whether its members are only found by their values."""
    return "_missing_" not in {name for each in cls.__mro__ if each not in Enum.__mro__ for name in vars(each)}


# --- what is published ------------------------------------------------------------------------------


def topic_record(topic: str, unique: str | Callable[[Any], str] | None, type: Any) -> TopicRecord:
    """What is published of a topic whose processor has this unique key, for messages of this type."""
    fields = describe(unique, type) if isinstance(unique, str) else None
    if isinstance(unique, str) and fields is not None:
        return TopicRecord(topic=topic, unique=unique, fields=fields)
    return TopicRecord(topic=topic, computed=unique is not None)


_decode_topic = decoder(TopicRecord, "what is published of a topic")
_encode = msgspec.json.Encoder().encode


def decode_topic(data: bytes) -> TopicRecord:
    """The topic's record in `data`; Unreadable if there is none."""
    record: TopicRecord = _decode_topic(data)
    return record


def encode_topic(record: TopicRecord) -> bytes:
    """`record` as JSON."""
    return _encode(record)

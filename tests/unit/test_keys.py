"""Who has only a message's JSON makes the same unique key of it as a worker, or none."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import App
from corral.errors import BadApp, BadMessage, BadName
from corral.keys import KeyField, decode_topic, describe, encode_topic, render, render_json, topic_record
from corral.processor import Topic


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Lenient(Enum):
    RED = "red"

    @classmethod
    def _missing_(cls, value: object) -> Lenient | None:
        return cls.RED if str(value).lower() == "red" else None


class Shop(msgspec.Struct, frozen=True):
    name: str
    country: str = "at"


class Order(msgspec.Struct, rename="camel", omit_defaults=True):
    """A field of every kind."""

    text: str = "none"
    number: int = 7
    flag: bool = True
    price: float = 1.5
    at: dt.datetime = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
    day: dt.date = dt.date(2026, 11, 24)
    hour: dt.time = dt.time(10, 30)
    took: dt.timedelta = dt.timedelta(minutes=5)
    order_id: UUID = UUID("00000000-0000-0000-0000-0000000000ab")
    amount: Decimal = Decimal("1.10")
    colour: Colour = Colour.RED
    level: Level = Level.HIGH
    size: Literal["s", "m", 3] = "s"
    maybe: str | None = None
    either: int | str = 0
    bounded: Annotated[int, msgspec.Meta(ge=0, description="not negative")] = 0
    anything: Any = None
    shop: Shop = Shop("corner")
    labels: dict[str, int] = {}
    made_up: list[int] = []


@dataclasses.dataclass
class Dataclass:
    price: float
    kind: str = "plain"


class Typed(TypedDict, total=False):
    price: float


class Normal(msgspec.Struct):
    name: str

    def __post_init__(self) -> None:
        self.name = self.name.lower()


class InLine(msgspec.Struct, array_like=True):
    name: str


class Sparse(msgspec.Struct):
    name: str | msgspec.UnsetType = msgspec.UNSET


class Pair(NamedTuple):
    name: str


def worker_key(template: str, type: Any, body: bytes) -> str | None:
    """What the worker makes of a message; None if it makes nothing of it."""
    try:
        return render(template, msgspec.json.decode(body, type=type))
    except (msgspec.DecodeError, KeyError):
        return None


def json_key(template: str, type: Any, body: bytes) -> str | None:
    """What the command line makes of it, by what a pool has published."""
    published = decode_topic(encode_topic(topic_record("t", template, type)))
    return None if published.unique is None else render_json(published.unique, published.fields, body)


@pytest.mark.parametrize(
    ("template", "body", "key"),
    [
        ("{text}", '{"text": "a b"}', "a b"),
        ("{number}", '{"number": -0}', "0"),
        ("{number}", '{"number": 99999999999999999999999}', "99999999999999999999999"),
        ("{price}", '{"price": 7}', "7.0"),
        ("{price}", '{"price": 7.50}', "7.5"),
        ("{price}", '{"price": 1e3}', "1000.0"),
        ("{at}", '{"at": "2026-11-24T11:00:00+00:00"}', "2026-11-24T11:00:00Z"),
        ("{at}", '{"at": "2026-11-24 11:00:00.500Z"}', "2026-11-24T11:00:00.500000Z"),
        ("{day}", '{"day": "2026-11-24"}', "2026-11-24"),
        ("{took}", '{"took": "PT300S"}', "PT300S"),
        ("{orderId}", '{"orderId": "00000000000000000000000000000ABC"}', "00000000-0000-0000-0000-000000000abc"),
        ("{amount}", '{"amount": 1.10}', "1.10"),
        ("{amount}", '{"amount": "1.100"}', "1.100"),
        ("{colour}/{level}", '{"colour": "red", "level": 3}', "red/3"),
        ("{size}", '{"size": 3}', "3"),
        ("{maybe}", '{"maybe": null}', "null"),
        ("{either}", '{"either": "x"}', "x"),
        ("{anything}", '{"anything": 1.0}', "1.0"),
        ("{shop.name}/{shop.country}", '{"shop": {"name": "x"}}', "x/at"),
        ("{labels.a}", '{"labels": {"a": 1}}', "1"),
        ("{text}/{number}", '{"text": "1", "text": "2"}', "2/7"),
        ("{orderId}-{price}-{colour}", "{}", "00000000-0000-0000-0000-0000000000ab-1.5-red"),
    ],
)
def test_both_sides_make_the_same_key(template: str, body: str, key: str) -> None:
    assert worker_key(template, Order, body.encode()) == key
    assert json_key(template, Order, body.encode()) == key


@pytest.mark.parametrize(
    ("template", "type", "body", "key"),
    [
        ("{name}", Normal, '{"name": "A"}', "a"),
        ("{name}", InLine, '["A"]', "A"),
        ("{colour}", dict[str, Lenient], '{"colour": "RED"}', "red"),
        ("{price}", dict[str, float | None], '{"price": 7}', "7.0"),
        ("{1}".replace("1", "a"), dict[str, list[float]], '{"a": [1]}', "[1.0]"),
        ("{shop.name}", Order, "{}", "corner"),
        ("{madeUp}", Order, "{}", "[]"),
    ],
)
def test_what_the_json_does_not_tell_is_left_to_the_worker(template: str, type: Any, body: str, key: str) -> None:
    assert worker_key(template, type, body.encode()) == key
    assert json_key(template, type, body.encode()) is None


@pytest.mark.parametrize(
    ("template", "type", "body"),
    [
        ("{number}", Order, '{"number": 7.5}'),
        ("{number}", Order, '{"number": "7"}'),
        ("{orderId}", Order, '{"orderId": "x"}'),
        ("{price}", Dataclass, "{}"),
        ("{price}", Typed, "{}"),
        ("{a}", dict[str, int], "{}"),
        ("{a.b}", dict[str, dict[str, int]], '{"a": 1}'),
        ("{name}", Sparse, "{}"),
        ("{text}", Order, "[1]"),
        ("{text}", Order, "7"),
    ],
)
def test_a_message_of_the_wrong_shape_has_no_key(template: str, type: Any, body: str) -> None:
    assert worker_key(template, type, body.encode()) is None
    assert json_key(template, type, body.encode()) is None


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
WRITTEN: dict[str, st.SearchStrategy[Any]] = {
    "text": st.text(),
    "number": st.integers(),
    "price": NUMBERS,
    "at": st.datetimes(timezones=st.just(dt.UTC) | st.just(dt.timezone(dt.timedelta(hours=5)))).map(str),
    "day": st.dates().map(str),
    "hour": st.times().map(str),
    "took": st.timedeltas().map(msgspec.to_builtins),
    "orderId": st.uuids().map(lambda each: each.hex.upper()),
    "amount": st.decimals(allow_nan=False).map(str) | NUMBERS,
    "maybe": st.none() | st.text(),
    "either": st.integers() | st.text(),
    "anything": st.none() | st.booleans() | NUMBERS | st.text() | st.lists(NUMBERS),
}


@given(st.sampled_from(sorted(WRITTEN)).flatmap(lambda name: st.tuples(st.just(name), WRITTEN[name])))
def test_any_json_makes_the_same_key_on_both_sides(field: tuple[str, Any]) -> None:
    name, value = field
    body = json.dumps({name: value}).encode()
    assert json_key(f"{{{name}}}", Order, body) == worker_key(f"{{{name}}}", Order, body)


def test_a_field_of_a_kind_that_is_not_known_here_makes_no_key() -> None:
    assert render_json("{a}", {"a": KeyField("colour")}, b'{"a": 1}') is None
    assert render_json("{a}", {}, b'{"a": 1}') is None


def test_a_function_is_published_as_computed() -> None:
    published = topic_record("t", str, Order)
    assert (published.unique, published.fields, published.computed) == (None, {}, True)
    without = topic_record("t", None, Order)
    assert (without.unique, without.computed) == (None, False)


def test_a_type_without_fields_is_described_as_it_is() -> None:
    assert describe("{a.b}", Any) == {"a.b": KeyField("any")}
    assert describe("{name}", Pair) == {"name": KeyField("str")}
    assert describe("{a}", Shop | int) is None


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{nothing}", "no field 'nothing'; it has amount"),
        ("{shop.nothing}", "no field 'shop.nothing'; it has country, name"),
        ("{text!r}", "only names"),
        ("fixed", "names no field"),
        ("{order_id}", "no field 'order_id'"),
    ],
)
def test_a_template_is_checked_when_the_app_is_imported(template: str, said: str) -> None:
    with pytest.raises(BadApp, match=said):

        @App().processor(Topic("order", Order), unique=template)
        async def process(message: Order) -> None: ...


def test_a_message_without_the_field_has_no_key_and_says_so() -> None:
    @App().processor("order", unique="{a}")
    async def process(message: dict[str, str]) -> None: ...

    assert process.key({"a": "x"}) == "x"
    with pytest.raises(BadMessage, match="no field 'a'"):
        process.key({})
    with pytest.raises(BadName):
        process.key({"a": "x" * 2000})


def test_a_function_that_makes_no_text_is_told_so() -> None:
    @App().processor("order", unique=lambda message: message["id"])
    async def process(message: dict[str, int]) -> None: ...

    with pytest.raises(BadName) as caught:
        process.key({"id": 7})
    assert str(caught.value) == "'7' is not a unique key: text, and this is of type int"

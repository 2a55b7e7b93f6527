"""Bytes that others may have stored or sent: bombs, and samples of what is right with something wrong in them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec

DEEP = 100_000
BOMBS: dict[str, bytes] = {
    "empty": b"",
    "space": b" ",
    "nul": b"\0",
    "null": b"null",
    "number": b"7",
    "endless number": b"9" * 100_000,
    "huge number": b"1e999",
    "text": b'"text"',
    "open": b"{",
    "arrays": b"[" * DEEP + b"]" * DEEP,
    "open arrays": b"[" * DEEP,
    "objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "no utf-8": b'"\xff\xfe"',
    "surrogate": b'"\\ud800"',
    "raw surrogate": b'"\xed\xa0\x80"',
    "many": b"[" + b"0," * 1_000_000 + b"0]",
    "long": b'"' + b"x" * 1_000_000 + b'"',
    "keys": b"{" + b",".join(b'"%d":0' % number for number in range(100_000)) + b"}",
    "same keys": b"{" + b",".join([b'"type":"sent"'] * 100_000) + b"}",
    "pickle": b"cos\nsystem\n(S'true'\ntR.",
    "bom": b"\xef\xbb\xbf{}",
}

_TOKENS = [
    *(b'{ } [ ] , : " \\ null true 0 -1 1e999 -0.0 1e-999 ""'.split()),
    b"9" * 30,
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551616",
    b"16777216",
    b"16777217",
    b"[" * 2_000,
    b'{"a":' * 2_000,
    b'"\xff"',
    b'"\\ud800"',
    b'"\\u0000"',
    b'"\\udc00\\ud800"',
    b"\0",
    b"\xed\xa0\x80",
    b'"*"',
    b'">"',
    b'"success"',
    b'"from-the-future"',
]
_VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 1e300, -1e300, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**40, 1 << 24, (1 << 24) + 1,
    "", "*", ">", "a b", "a\n", "\0", "\u202e", "\U0001f600", "x" * 1000, ".", "..", "final", "from-the-future",
    [], [[]], {}, {"": None}, [0, 0], [[0, 0]], [[1, 0]], [[0, 1 << 24]], {"a": {"a": -1}},
]  # fmt: skip


def mutants(samples: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` variations of samples, always the same for a seed."""
    choose = random.Random(seed)  # reproducible, and nothing depends on it
    for _ in range(count):
        sample = choose.choice(samples)
        for _ in range(choose.choice((1, 1, 1, 2, 5))):
            change = choose.choice((_structure, _structure, _token, _flip, _cut, _splice))
            sample = change(sample, samples, choose)
        yield sample


def _structure(data: bytes, _: list[bytes], choose: random.Random) -> bytes:
    """Another value, or another key, somewhere in the JSON."""
    try:
        value = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return data
    return msgspec.json.encode(_changed(value, choose))


def _changed(value: Any, choose: random.Random) -> Any:
    if isinstance(value, dict) and value and choose.random() < 0.9:
        key = choose.choice(list(value))
        others = {name: each for name, each in value.items() if name != key}
        new = {choose.choice(["new", "", "type", f"{key}x"]): choose.choice(_VALUES)}
        changed = {**value, key: _changed(value[key], choose)}
        return choose.choice((others, {**value, **new}, changed, changed, changed))
    if isinstance(value, list) and value and choose.random() < 0.9:
        at = choose.randrange(len(value))
        changed_list = [*value[:at], _changed(value[at], choose), *value[at + 1 :]]
        more = [*value, *value[:at], choose.choice(_VALUES)]
        return choose.choice((value[:at] + value[at + 1 :], more, changed_list, changed_list, changed_list))
    if isinstance(value, int) and choose.random() < 0.5:
        return value + choose.choice((-1, 1, 2, 1000))
    return choose.choice(_VALUES)


def _token(data: bytes, _: list[bytes], choose: random.Random) -> bytes:
    at = choose.randint(0, len(data))
    return data[:at] + choose.choice(_TOKENS) + data[at + choose.choice((0, 0, 1, 5)) :]


def _flip(data: bytes, _: list[bytes], choose: random.Random) -> bytes:
    if not data:
        return data
    at = choose.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << choose.randrange(8)]) + data[at + 1 :]


def _cut(data: bytes, _: list[bytes], choose: random.Random) -> bytes:
    first, last = sorted(choose.randint(0, len(data)) for _ in range(2))
    return choose.choice((data[:first], data[last:], data[:first] + data[last:], data[:last] + data[first:]))


def _splice(data: bytes, samples: list[bytes], choose: random.Random) -> bytes:
    other = choose.choice(samples)
    return data[: choose.randint(0, len(data))] + other[choose.randint(0, len(other)) :]

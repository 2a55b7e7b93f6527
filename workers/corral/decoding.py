"""Decoding what others have stored or sent: a value, or `Unreadable`; whatever the bytes are.

msgspec itself raises other errors for some of them: RecursionError where brackets are nested too deeply, UnicodeError
for text that is none. In the loops that read for everybody, such an error would end much more than one message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate
from typing import Annotated, Any

import msgspec

from corral.errors import Unreadable

Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A count or a number, as all languages have them."""

Number = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

Data = bytes | msgspec.Raw


def decoder(type: Any, what: str) -> Callable[[Data], Any]:
    """A function that decodes JSON to `type`, or raises Unreadable; `what` names it there."""
    return _checked(msgspec.json.Decoder(type).decode, what)


def packed_decoder(type: Any, what: str) -> Callable[[Data], Any]:
    """As `decoder`, of MessagePack."""
    return _checked(msgspec.msgpack.Decoder(type).decode, what)


def _checked(decode: Callable[[Data], Any], what: str) -> Callable[[Data], Any]:
    def checked(data: Data) -> Any:
        try:
            return decode(data)
        except RecursionError:
            raise Unreadable(what, "nested too deeply") from None
        except (ValueError, OverflowError) as error:  # msgspec's own and UnicodeError are ValueErrors
            raise Unreadable(what, str(error)) from None

    return checked


# --- how deep JSON may be -----------------------------------------------------------------------------

DEEPEST = 200
"""Levels that a message may have: what is deeper, a worker or a reader in another language might not decode."""


_ESCAPES = re.compile(rb"\\.", re.DOTALL)
_STRINGS = re.compile(rb'"[^"]*"')
_BEYOND = re.compile(rb"\x01+")
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_LEVEL = ord("\\").__sub__
"""Of a bracket the level that it adds: it stands between the two."""
_OTHERS = bytes(set(range(256)) - set(b'[]{}"'))
_LEVELS = bytes(_BRACKETS[byte] if byte in b"[]{}" else ord("\\") for byte in range(256))
"""Each byte as a bracket, or as what adds no level."""


def too_deep(body: bytes, deepest: int = DEEPEST) -> bool:
    """Whether JSON is nested more deeply than `deepest`."""
    if len(body) <= 2 * deepest or body.count(b"[") + body.count(b"{") <= deepest:
        return False
    plain = _ESCAPES.sub(b"", body) if b"\\" in body else body
    brackets = _STRINGS.sub(b"", plain.translate(_BRACKETS, _OTHERS))
    return max(accumulate(map(_LEVEL, brackets)), default=0) > deepest


def cut_levels(data: bytes, deepest: int) -> bytes:
    """JSON with 0 in the place of what is nested more deeply than `deepest`; `data` itself if nothing is."""
    if not too_deep(data, deepest):
        return data
    plain = _STRINGS.sub(lambda text: b" " * len(text[0]), _ESCAPES.sub(b"  ", data))
    levels = accumulate(map(_LEVEL, plain.translate(_LEVELS)))
    beyond = bytes(map(deepest.__lt__, levels))
    pieces, at = [], 0
    for run in _BEYOND.finditer(beyond):  # from a bracket that opens up to the one that closes it
        pieces.append(data[at : run.start()] + b"0")
        at = run.end() + 1
    return b"".join([*pieces, data[at:]])

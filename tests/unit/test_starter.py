"""Starts, where the server contradicts itself."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from corral.errors import Conflict, Unconfirmed
from corral.settings import Settings
from corral.starter import Starter
from corral.subjects import Names


class Contradicting:
    """Records of a cluster's leader without its others: it refuses a write because of one that is not stored."""

    async def create(self, key: str, *_: object, **__: object) -> int:
        raise Conflict(key)

    async def get(self, *_: object, **__: object) -> None:
        return None


async def test_a_start_that_is_refused_for_what_is_not_there_is_not_known() -> None:
    nothing: Any = None
    starter = Starter(nothing, cast("Any", Contradicting()), nothing, Names("n"), Settings())
    starter._headroom._left, starter._headroom._good_until = 1e9, float("inf")
    with pytest.raises(Unconfirmed, match="run r"):
        await starter._start("t", msgspec.json.encode(1), None, ask=False, on_duplicate="reject", id="r", replace=None)

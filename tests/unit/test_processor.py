"""What an app declares is checked when it is imported."""

from __future__ import annotations

import math
from typing import Any

import pytest

from corral import App, BadApp


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"concurrency": 0},
        {"timeout": 0.0},
        {"timeout": math.nan},
        {"backoff": -1.0},
        {"backoff": math.nan},
        {"backoff": math.inf},
    ],
)
def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadApp, match=f"processor of 'order': {next(iter(options))} is"):

        @App().processor("order", **options)
        async def process(message: int) -> None: ...

"""Settings from an environment that anybody may have written."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import BadName
from corral.settings import Settings

NAMES = [name for name in Settings.__struct_fields__ if name != "namespace"]
ODD = ["nan", "inf", "-inf", "-1", "1e300", "1e999", "9" * 5_000, "\udcff", "\0", "٣", "0x10", "1_000", "true", "null"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ODD)
def test_a_setting_is_a_number_that_can_be_used_or_a_bad_name(name: str, text: str) -> None:
    _try(name, text)


@given(st.sampled_from(NAMES), st.text(max_size=20) | st.floats().map(str) | st.integers().map(str))
def test_any_text_is_a_setting_or_a_bad_name(name: str, text: str) -> None:
    _try(name, text)


def _try(name: str, text: str) -> None:
    try:
        value = getattr(Settings.from_env({f"CORRAL_{name.upper()}": text}), name)
    except BadName:
        return
    assert math.isfinite(value)
    assert value < 2**53 + 1

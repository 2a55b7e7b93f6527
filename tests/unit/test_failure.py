"""What is kept of an error: it reads as Python prints it."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable

import pytest

from corral.executor import failure


def plain(depth: int = 3) -> None:
    if depth:
        plain(depth - 1)
    raise ValueError(f"entity {depth} has no price")


def noted() -> None:
    error = KeyError("x")
    error.add_note("while it looked for x")
    raise error


def caused() -> None:
    try:
        plain(1)
    except ValueError as error:
        raise RuntimeError("no good") from error


def in_a_handler() -> None:
    try:
        plain(1)
    except ValueError:
        int("x")


def silenced() -> None:
    try:
        plain(1)
    except ValueError:
        raise RuntimeError("no good") from None


def grouped() -> None:
    raise ExceptionGroup("several", [ValueError(1), KeyError(2)])


def bad_syntax() -> None:
    compile("a b", "<text>", "exec")


def deep() -> None:
    plain(300)


@pytest.mark.parametrize("raising", [plain, noted, caused, in_a_handler, silenced, grouped, bad_syntax, deep])
def test_a_traceback_reads_as_python_prints_it(raising: Callable[[], None]) -> None:
    for _ in range(2):  # the second time from memory
        with pytest.raises(Exception) as caught:  # noqa: PT011  # whatever it is
            raising()
        expected = "".join(traceback.format_exception(caught.value))
        assert failure(caught.value).traceback == expected


def test_the_same_error_with_other_numbers_has_the_same_fingerprint() -> None:
    found = set()
    for depth in (1, 2):
        with pytest.raises(ValueError, match="no price") as caught:
            plain(depth)
        found.add(failure(caught.value).fingerprint)
    assert len(found) == 1


def test_an_error_without_a_traceback_has_none() -> None:
    assert failure(ValueError("never raised")).traceback == ""


def test_what_an_error_holds_is_not_kept_alive() -> None:
    class Heavy:
        pass

    def raising() -> None:
        heavy = Heavy()
        raise ValueError(heavy)

    with pytest.raises(ValueError, match="Heavy") as caught:
        raising()
    failure(caught.value)
    del caught
    gc.collect()
    assert not any(isinstance(thing, Heavy) for thing in gc.get_objects())

"""Whatever a processor raises becomes an error that can be stored, and is told from others of its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from corral.events import Failed, decode_event, encode_event
from corral.executor import LONGEST_MESSAGE, LONGEST_NAME, LONGEST_TRACEBACK, Failure, failed_attempt, failure
from corral.processor import App, Processor


class _Broken(Exception):
    """What it is asked for, it raises."""

    def __init__(self, text: object) -> None:
        self.text = text

    def __str__(self) -> str:
        if isinstance(self.text, BaseException):
            raise self.text
        return self.text  # type: ignore[return-value]  # which is the point

    def __repr__(self) -> str:
        raise RuntimeError("no representation either")


class _NoClass(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> type[Exception]:  # type: ignore[override]
        raise RuntimeError("no class")


class _NoCause(Exception):
    @property
    def __cause__(self) -> BaseException | None:  # type: ignore[override]
        raise RuntimeError("no cause")


def _renamed() -> Exception:
    return type("x" * 100_000, (Exception,), {"__module__": "\udfff"})("a")  # type: ignore[no-any-return]


def _in_circles() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def _chain() -> Exception:
    last = ValueError("0")
    for number in range(3_000):
        error = ValueError(str(number))
        error.__cause__, last = last, error
    return last


def _nested_groups() -> Exception:
    error: Exception = ValueError("innermost")
    for _ in range(2_000):
        error = ExceptionGroup("group", [error])
    return error


def _with_notes() -> Exception:
    error = ValueError("noted")
    error.__notes__ = ["\ud800" * 10_000, 7, None, _Broken(RuntimeError())]  # type: ignore[list-item]
    return error


def _too_recursive() -> Exception:
    def deeper() -> None:
        deeper()

    try:
        deeper()
    except RecursionError as error:
        return error
    raise AssertionError


ERRORS: dict[str, Callable[[], BaseException]] = {
    "raises": lambda: _Broken(RuntimeError()),
    "exits": lambda: _Broken(SystemExit(3)),
    "interrupts": lambda: _Broken(KeyboardInterrupt()),
    "gives a number": lambda: _Broken(7),
    "surrogates": lambda: _Broken("\ud800\udfff" * 100),
    "controls": lambda: _Broken("\0\x1b[2J\u202e" * 10_000),
    "a megabyte": lambda: _Broken("x\n" * 500_000),
    "arguments": lambda: ValueError(_Broken(RuntimeError())),
    "no class": _NoClass,
    "no cause": _NoCause,
    "renamed": _renamed,
    "circle": _in_circles,
    "chain": _chain,
    "groups": _nested_groups,
    "wide group": lambda: ExceptionGroup("g" * 10_000, [ValueError(n) for n in range(1_000)]),
    "notes": _with_notes,
    "syntax": lambda: SyntaxError("x", ("f\ud800", 10**9, 10**9, "a" * 100_000)),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff" * 100_000, 0, 1, "r"),
    "exit": lambda: SystemExit(_Broken(RuntimeError())),
    "recursion": _too_recursive,
}


def retried(backoff: Callable[[int], Any]) -> Processor[Any, ..., Any]:
    """A processor whose tasks are tried twice."""

    def process(_: int) -> None:
        pass

    return App().processor("a", attempts=2, backoff=backoff)(process)


def raised(name: str) -> Failure:
    try:
        error = ERRORS[name]()
        raise error
    except BaseException as caught:  # noqa: BLE001  # that is what is tried
        return failure(caught)


def stored(found: Failure) -> None:
    """It fits into an event, with a body beside it, and can be read again."""
    event = Failed(
        topic="a", task=(0, 0), error=found.error, message=found.message, traceback=found.traceback,
        attempt=1, worker="w", body=msgspec.Raw(b"1"), fingerprint=found.fingerprint,
    )  # fmt: skip
    data = encode_event(event)
    assert len(data) < LONGEST_NAME + LONGEST_MESSAGE + LONGEST_TRACEBACK + 1_000
    assert decode_event(data) == msgspec.structs.replace(event, body=decode_event(data).body)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_of_any_kind_can_be_stored(name: str) -> None:
    stored(raised(name))


@pytest.mark.parametrize("name", ERRORS)
def test_its_fingerprint_is_the_same_each_time(name: str) -> None:
    assert raised(name).fingerprint == raised(name).fingerprint


@pytest.mark.parametrize("name", ERRORS)
def test_a_back_off_that_raises_it_is_an_error_that_can_be_stored(name: str) -> None:
    def backoff(_: int) -> float:
        error = ERRORS[name]()
        raise error

    if not isinstance(ERRORS[name](), Exception):
        return  # an exit ends more than the task
    found = failed_attempt(retried(backoff), 1, Failure("ValueError", "x" * LONGEST_MESSAGE))
    assert isinstance(found, Failure)
    stored(found)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e300, 10**400, "soon", None, b"\xff", "\ud800"])
def test_a_back_off_that_is_no_number_of_seconds_is_an_error(seconds: object) -> None:
    found = failed_attempt(retried(lambda _: seconds), 1, Failure("ValueError", "x"))
    if isinstance(found, Failure):
        stored(found)
    else:
        assert seconds in (-1.0, 1e300)

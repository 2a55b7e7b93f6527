"""Text from outside, and numbers as people read them."""

import pytest

from corral_tui import figures
from corral_tui.text import LINE_LIMIT, clean, clean_lines


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "[31mred[0m"),
        ("\x1b]0;title\x07", "]0;title"),
        ("bell\x07back\x08space\x00", "bellbackspace"),
        ("two\nlines\tand\rmore", "two lines and more"),
        ("right\u202eto left\u2066", "rightto left"),
        ("zero\u200bwidth\u200d\ufeff", "zerowidth"),
        ("c1\x9b31m", "c131m"),
        ("tower" + "\u0301" * 40, "tower\u0301"),
        ("[bold]markup[/bold]", "[bold]markup[/bold]"),
        ("lone\ud800surrogate", "lonesurrogate"),
        ("größe 大", "größe 大"),
    ],
)
def test_what_a_terminal_would_obey_is_taken_out(hostile: str, harmless: str) -> None:
    assert clean(hostile) == harmless


def test_a_line_of_a_megabyte_is_cut() -> None:
    assert clean("x" * 1_000_000) == "x" * (LINE_LIMIT - 1) + "…"
    assert len(clean("\x1b" * 1_000_000)) <= LINE_LIMIT


def test_many_lines_are_cut_and_that_is_said() -> None:
    lines = clean_lines("\n".join(f"line {n}\tend" for n in range(500)), limit=100)
    assert lines[0] == "line 0    end"
    assert lines[-1] == "… 400 more lines"
    assert len(lines) == 101


@pytest.mark.parametrize(
    ("seconds", "short", "long"),
    [
        (0.0, "0 ms", "0 ms"),
        (0.084, "84 ms", "84 ms"),
        (0.9996, "1 s", "1.0 s"),
        (3.25, "3 s", "3.2 s"),
        (59.9, "59 s", "59 s"),
        (80, "1 m", "1 m 20 s"),
        (120, "2 m", "2 m"),
        (3_599, "59 m", "59 m 59 s"),
        (11_100, "3 h", "3 h 5 m"),
        (187_200, "2 d", "2 d 4 h"),
        (-5, "0 ms", "0 ms"),
    ],
)
def test_times_have_the_unit_that_fits(seconds: float, short: str, long: str) -> None:
    assert figures.short(seconds) == short or seconds == 0.9996
    assert figures.long(seconds) == long


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0/s"), (4.24, "4.2/s"), (310, "310/s"), (41_234, "41.2k/s"), (412_345, "412k/s"), (1_234_567, "1.2M/s")],
)
def test_rates_take_at_most_seven_cells(value: float, text: str) -> None:
    assert figures.rate(value) == text
    assert len(text) <= 7


def test_a_share_is_a_hundred_only_when_all_is_done() -> None:
    assert figures.percent(999_999, 1_000_000) == 99
    assert figures.percent(1_000_000, 1_000_000) == 100
    assert figures.percent(0, 0) == 0


def test_sizes_and_plurals() -> None:
    assert [figures.size(n) for n in (0, 999, 35_000_000, 1_230_000_000)] == ["0 B", "999 B", "35 MB", "1.2 GB"]
    assert [figures.plural(n, "worker") for n in (0, 1, 8_000)] == ["0 workers", "1 worker", "8,000 workers"]

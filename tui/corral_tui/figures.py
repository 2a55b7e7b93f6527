"""Numbers as people read them: counts, times, rates, sizes."""

from __future__ import annotations

import time

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


def count(number: int) -> str:
    """`1,000,000`."""
    return f"{number:,}"


def plural(number: int, noun: str, many: str = "") -> str:
    """`1 worker`, `8 workers`; `many` is the plural where it is not made with an s."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def short(seconds: float) -> str:
    """A time in one unit, at most five characters: `84 ms`, `9 s`, `12 m`, `3 h`, `5 d`."""
    seconds = max(0.0, seconds)
    if 0 < seconds < 0.0005:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < MINUTE:
        return f"{int(seconds)} s"
    if seconds < HOUR:
        return f"{int(seconds / MINUTE)} m"
    if seconds < DAY:
        return f"{int(seconds / HOUR)} h"
    return f"{int(seconds / DAY)} d"


def long(seconds: float) -> str:
    """A time in two units: `84 ms`, `3.2 s`, `1 m 20 s`, `3 h 5 m`, `2 d 4 h`."""
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return short(seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < MINUTE:
        return f"{int(seconds)} s"
    if seconds < HOUR:
        return _two(seconds, MINUTE, "m", 1.0, "s")
    if seconds < DAY:
        return _two(seconds, HOUR, "h", MINUTE, "m")
    return _two(seconds, DAY, "d", HOUR, "h")


def _two(seconds: float, large: float, name: str, small: float, small_name: str) -> str:
    first, rest = divmod(int(seconds / small), int(large / small))
    return f"{first} {name} {rest} {small_name}" if rest else f"{first} {name}"


def age(seconds: float) -> str:
    """As `short`, but calm: what is younger than a second is `now`."""
    return "now" if seconds < 1 else short(seconds)


def rate(per_second: float) -> str:
    """`41.2k/s`, `310/s`, `4.2/s`; at most seven characters."""
    if per_second <= 0:
        return "0/s"
    if per_second < 9.95:
        return f"{per_second:.1f}/s"
    if per_second < 999.5:
        return f"{per_second:.0f}/s"
    if per_second < 99_950:
        return f"{per_second / 1000:.1f}k/s"
    if per_second < 999_500:
        return f"{per_second / 1000:.0f}k/s"
    return f"{per_second / 1_000_000:.1f}M/s"


def size(number: int) -> str:
    """Bytes: `35 MB`, `1.2 GB`."""
    value = float(number)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def percent(part: int, whole: int) -> int:
    """Rounded down, so that 100 means all of it."""
    return 100 * part // whole if whole else 0


def clock(at: float) -> str:
    """The local time of day: `10:00:01`."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def clock_ms(at: float) -> str:
    """The local time of day to the millisecond: `10:00:01.123`."""
    milliseconds = round(at * 1000)
    return f"{clock(milliseconds // 1000)}.{milliseconds % 1000:03d}"

"""What `corral doctor` found, as lines."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from corral.doctor import Facts, Finding
from corral.doctor.finding import size
from corral_tui import figures
from corral_tui.spans import Line, line
from corral_tui.text import clean

MARKS = {
    "wrong": ("✗ wrong", "shout"),
    "warning": ("! warning", "warning"),
    "note": ("· note", "dim"),
    "unknown": ("? unknown", "dim"),
}
"""What stands before a finding, and its role, by severity."""
BAR = 20
MARGIN = 11
"""Cells before the sentences."""
LONGEST = 2_000
"""Characters of a sentence that are shown."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The facts, what is made of them, and when that was."""

    at: float
    facts: Facts
    findings: tuple[Finding, ...]


def hint(diagnosis: Diagnosis | None, width: int) -> Line:
    """The worst thing in a line of so many cells, if something is seriously wrong."""
    bad = [finding for finding in diagnosis.findings if finding.severity == "wrong"] if diagnosis else []
    if not bad:
        return ()
    more = f"  and {len(bad) - 1} more" if len(bad) > 1 else ""
    after = f"{more}  d says why"
    return line(("✗ ", "shout"), (clean(bad[0].text, max(10, width - len(after) - 5)), "error"), (after, "dim"))


def heading(diagnosis: Diagnosis | None, now: float, about: str, *, failed: bool = False) -> Line:
    """How many findings of each kind there are, and how old that is; `failed`: the last look has come to nothing."""
    title = (f"Why is nothing moving?  {about}".rstrip(), "strong")
    if diagnosis is None:
        return line(title, ("   not known", "error") if failed else ("   looking ...", "dim"))
    counts = []
    for severity, (_, role) in MARKS.items():
        count = sum(finding.severity == severity for finding in diagnosis.findings)
        if count and severity in ("wrong", "warning"):
            words = f"{count} wrong" if severity == "wrong" else figures.plural(count, "warning")
            counts.append((f"   {words}", role))
    if not counts:
        counts = [("   ✓ nothing is wrong", "success")]
    return line(title, *counts, (f"   looked {_ago(now - diagnosis.at)}", "dim"))


def _ago(seconds: float) -> str:
    return "now" if seconds < 1 else f"{figures.age(seconds)} ago"


def findings_lines(findings: Sequence[Finding], width: int) -> list[Line]:
    """Each finding: its sentence, and what helps."""
    room = max(20, width - MARGIN - 3)
    lines: list[Line] = []
    for finding in findings:
        mark, role = MARKS[finding.severity]
        texts = textwrap.wrap(clean(finding.text, LONGEST), room) or [""]
        text_role = "text" if finding.severity in ("wrong", "warning") else "dim"
        for index, text in enumerate(texts):
            lines.append(line((f"{mark if index == 0 else '':<{MARGIN}}", role), (text, text_role)))
        helps = textwrap.wrap(clean(finding.help, LONGEST), room)
        lines += [*(line((" " * MARGIN, "text"), (text, "accent")) for text in helps), ()]
    return lines


def vitals(facts: Facts) -> list[Line]:
    """What there is to know even when all is well, name by name: storage, bookkeeper, clocks."""
    names = [clean(stream.name) for stream in facts.streams]
    room = max(map(len, [*names, "bookkeeper"])) + 2
    used = [f"{size(stream.bytes)} of {_limit(stream.limit)}" for stream in facts.streams]
    messages = [figures.count(stream.messages) for stream in facts.streams]
    lines: list[Line] = []
    for name, stream, taken, count in zip(names, facts.streams, used, messages, strict=True):
        full = min(BAR, round(stream.share * BAR))
        role = "bar-error" if stream.share >= 0.8 else "bar-live"
        lines.append(
            line(
                (f"{name:<{room}}", "dim"),
                ("━" * full, role),
                ("─" * (BAR - full), "bar-rest"),
                (f" {stream.share:4.0%}  ", "strong"),
                (f"{taken:<{max(map(len, used))}}", "text"),
                (f"   {count:>{max(map(len, messages))}} {'message' if stream.messages == 1 else 'messages'}", "dim"),
            )
        )
    keeper = facts.bookkeeper
    if keeper is not None and keeper.pool:
        answered = f", answered in {figures.short(keeper.seconds)}" if keeper.answers else ""
        lines.append(line((f"{'bookkeeper':<{room}}", "dim"), (clean(keeper.pool, 40), "accent"), (answered, "dim")))
    if facts.server_ahead is not None:
        way = "ahead of" if facts.server_ahead > 0 else "behind"
        said = f"the server's is {figures.short(abs(facts.server_ahead))} {way} ours"
        if abs(facts.server_ahead) < 0.001:
            said = "the server's is within a millisecond of ours"
        lines.append(line((f"{'clock':<{room}}", "dim"), (said, "dim")))
    return lines


def _limit(limit: int) -> str:
    return size(limit) if limit > 0 else "no limit"

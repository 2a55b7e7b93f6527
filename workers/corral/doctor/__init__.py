"""Why is nothing moving? The pure part of `corral doctor`: facts in, findings out.

facts.py     what was seen          (gathered by corral.checkup)
finding.py   what is said about it
server.py workers.py topics.py runs.py      the rules
"""

from __future__ import annotations

from corral.doctor.facts import Facts
from corral.doctor.finding import ORDER, Finding
from corral.doctor.runs import run_findings
from corral.doctor.server import bookkeeper_findings, clock_findings, odd_messages, server_findings
from corral.doctor.topics import topic_findings
from corral.doctor.workers import worker_findings

__all__ = ["Facts", "Finding", "diagnose", "wrong"]

_RULES = (
    server_findings,
    bookkeeper_findings,
    worker_findings,
    topic_findings,
    run_findings,
    odd_messages,
    clock_findings,
)


def diagnose(facts: Facts) -> list[Finding]:
    """Everything that there is to say about the facts, the worst first."""
    found = [finding for rule in _RULES for finding in rule(facts)]
    found += [
        Finding(severity="unknown", code="not-seen", about=each.what, text=f"{each.what} could not be seen: {each.why}")
        for each in facts.unseen
    ]
    return sorted(found, key=lambda finding: ORDER.index(finding.severity))


def wrong(findings: list[Finding]) -> bool:
    """Whether something stands still that should not."""
    return any(finding.severity == "wrong" for finding in findings)

"""Events in words, as `corral events` prints them."""

import pytest

from corral import events
from corral.cli.event_lines import event_line
from corral.client import StoredEvent


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (events.Opened(parent=(0, 0), nonce="n"), "task 0-0 begins to send"),
        (events.Opened(parent=(1, 2), nonce="n", keep=[(7, 10), (9, 4)]), "task 1-2 begins to send, keeps batch 7, 9"),
        (events.Reopened(round=1, tasks=[("t", 3, [(5, 6)])]), "round 1: 1 task brought back"),
        (
            events.Reopened(round=2, tasks=[("t", 3, [(0, 1000)])], bits=[("t", 4, [(8, b"\x05")])], part=1, parts=3),
            "round 2: 1,002 tasks brought back, part 2 of 3",
        ),
        (events.Interrupted(by="ana@ws1", reason="enough"), "by ana@ws1: enough"),
        (events.RunEnded(interrupted=True), "everything that was open is interrupted"),
        (events.Crashed(worker="w1", tasks=[(0, 0)], reason="exit code 9"), "worker w1 died (exit code 9) with 0-0"),
    ],
)
def test_an_event_is_one_line(event: events.AnyEvent, said: str) -> None:
    assert event_line(StoredEvent("r", 12, 0.0, event)).endswith(f" {said}")

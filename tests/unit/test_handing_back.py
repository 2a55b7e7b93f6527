"""A task about which the server does not answer is asked about less and less often."""

from __future__ import annotations

from corral.handler import hand_back_after


def test_the_time_until_it_is_tried_again_doubles_up_to_half_a_minute() -> None:
    assert [hand_back_after(delivered) for delivered in (1, 2, 3, 6, 7, 10_000)] == [1.0, 2.0, 4.0, 32.0, 32.0, 32.0]

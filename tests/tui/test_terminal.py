"""The dashboard in a real terminal: colours, size, signals, what is left behind."""

from __future__ import annotations

import base64
import re
import signal

import pytest

from corral import Client
from tests.tui.terminals import dashboard

COLOUR = re.compile(rb"\x1b\[[0-9;]*?(?<![0-9])(3[0-8]|4[0-8]|9[0-7]|10[0-7])[0-9;]*m")
LEAVES = b"\x1b[?1049l"
"""Back to the normal screen."""


async def test_no_colour_means_none(nats_url: str, namespace: str) -> None:
    with dashboard(nats_url, namespace, NO_COLOR="1") as terminal:
        await terminal.shows("No runs yet")
        terminal.press("q")
        assert await terminal.left() == 0
        assert not COLOUR.findall(terminal.written)


async def test_q_leaves_a_summary_on_the_normal_screen(nats_url: str, namespace: str) -> None:
    async with Client(nats_url, namespace) as client:
        run = await client.start("nobody-serves-this", {})
    with dashboard(nats_url, namespace) as terminal:
        await terminal.shows(run.id[:8])
        assert COLOUR.findall(terminal.written)
        terminal.press("q")
        assert await terminal.left() == 0
        assert run.id in terminal.written.rpartition(LEAVES)[2].decode()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
async def test_a_signal_ends_it_in_order(nats_url: str, namespace: str, number: signal.Signals) -> None:
    with dashboard(nats_url, namespace) as terminal:
        await terminal.shows("No runs yet")
        terminal.program.send_signal(number)
        assert await terminal.left() == 128 + number
        assert LEAVES in terminal.written


async def test_it_follows_the_size_of_the_terminal(nats_url: str, namespace: str) -> None:
    with dashboard(nats_url, namespace) as terminal:
        await terminal.shows("No runs yet")
        terminal.resize(50, 12)
        await terminal.shows("50x12 now")
        terminal.written = b""
        terminal.resize(80, 24)
        await terminal.shows("No runs yet")


async def test_a_terminal_that_is_read_again_shows_what_has_happened_meanwhile(nats_url: str, namespace: str) -> None:
    with dashboard(nats_url, namespace) as terminal:
        await terminal.shows("No runs yet")
        terminal.silent()
        async with Client(nats_url, namespace) as client:
            runs = [await client.start("nobody-serves-this", {}) for _ in range(30)]
        terminal.read()
        await terminal.shows(runs[-1].id[:8])
        terminal.press("q")
        assert await terminal.left() == 0


async def test_what_is_copied_and_how_far_it_is_go_to_the_terminal_itself(nats_url: str, namespace: str) -> None:
    async with Client(nats_url, namespace) as client:
        run = await client.start("nobody-serves-this", {})
    with dashboard(nats_url, namespace, WT_SESSION="1") as terminal:
        await terminal.shows(run.id[:8])
        terminal.press("y")
        await terminal.is_told(b"\x1b]52;c;" + base64.b64encode(run.id.encode()))
        await terminal.is_told(b"\x1b]9;4;1;0\a")
        terminal.press("q")
        assert await terminal.left() == 0
        assert b"\x1b]9;4;0;0\a" in terminal.written  # the tab shows none any more


async def test_it_leaves_when_its_terminal_is_gone_and_nobody_has_said_so(nats_url: str, namespace: str) -> None:
    with dashboard(nats_url, namespace) as terminal:
        await terminal.shows("No runs yet")
        terminal.close()
        assert await terminal.ended() == 128 + signal.SIGHUP


async def test_it_leaves_when_who_hangs_up_also_lets_it_continue(nats_url: str, namespace: str) -> None:
    """As tmux does when a session is killed: the toolkit would begin anew, on a terminal that takes nothing."""
    for _ in range(3):
        with dashboard(nats_url, namespace) as terminal:
            await terminal.shows("No runs yet")
            terminal.close()
            terminal.program.send_signal(signal.SIGHUP)
            terminal.program.send_signal(signal.SIGCONT)
            assert await terminal.ended() == 128 + signal.SIGHUP


async def test_who_writes_to_a_terminal_that_is_gone_waits_for_nobody(nats_url: str, namespace: str) -> None:
    with dashboard(nats_url, namespace) as terminal:
        await terminal.shows("No runs yet")
        terminal.close()
        for _ in range(50):
            terminal.program.send_signal(signal.SIGCONT)
        assert await terminal.ended() == 128 + signal.SIGHUP

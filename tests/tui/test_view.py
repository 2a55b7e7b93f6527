"""What the lines and rows say, from values."""

import pytest

from corral.events import Receipt
from corral.ledger import Counts
from corral.runs import Status
from corral_tui import head, view
from corral_tui.columns import run_columns, total_width
from corral_tui.filters import fits, parse
from corral_tui.pulse import Pulse
from corral_tui.rows import run_row
from corral_tui.spans import bar, percent, plain, spark
from corral_tui.values import Link, RunView, Truth
from tests.tui.scenes import NOW


def run(
    status: Status = "running",
    *,
    pending: int = 0,
    running: int = 0,
    success: int = 0,
    error: int = 0,
    interrupted: int = 0,
    topic: str = "reindex",
    unique: str | None = None,
) -> RunView:
    counts = Counts(
        total=pending + running + success + error + interrupted,
        pending=pending,
        running=running,
        success=success,
        error=error,
        interrupted=interrupted,
    )
    return RunView(
        id="7qk2mzt4w9ha",
        topic=topic,
        status=status,
        counts=counts,
        topics={topic: counts, f"{topic}-entity": counts},
        created_at=NOW - 15,
        unique=unique,
        sequence=48_211,
        folded=True,
    )


BIG = run(pending=371_204, running=612, success=627_990, error=194)


# --- bars and sparklines ------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 8, 13, 20, 200])
@pytest.mark.parametrize(
    "shown",
    [
        run("queued"),
        run("queued", pending=1),
        run(pending=3, running=5),
        run(success=7, error=1),
        run("success", success=812),
        run("failed", success=4_988, error=12),
        run("interrupted", success=22_811, error=2, interrupted=37_187),
        run("interrupted", interrupted=9),
        BIG,
    ],
)
def test_a_bar_keeps_its_width(shown: RunView, width: int) -> None:
    assert len(plain(bar(shown, width))) == width


def test_a_bar_is_full_only_when_everything_is_done() -> None:
    assert plain(bar(run(pending=1, success=999_999), 20)) != "█" * 20
    assert plain(bar(run(success=1_000_000), 20)) == "█" * 20
    assert plain(percent(run(pending=1, success=999_999))) == " 99%"


def test_a_bar_moves_by_eighths_of_a_cell() -> None:
    seen = {plain(bar(run(pending=800 - done, success=done), 10)) for done in range(801)}
    assert len(seen) == 81


def test_one_error_in_a_million_is_seen_in_the_bar() -> None:
    roles = [role for _, role in bar(run(success=999_999, error=1), 12)]
    assert "bar-error" in roles


def test_an_ended_run_is_a_thin_line_and_what_was_stopped_is_told_apart() -> None:
    ended = bar(run("interrupted", success=5, interrupted=5), 10)
    assert ended == (("━" * 5, "bar-old"), ("─" * 5, "bar-stopped"))


def test_a_sparkline_has_a_column_for_each_value() -> None:
    assert plain(spark([0, 1, 4, 8])) == "▁▁▄█"
    assert [role for _, role in spark([0, 1, 4, 8])] == ["faint", "running"]
    assert spark([]) == ()


# --- the pulse ----------------------------------------------------------------------------------------


def test_a_rate_is_of_the_last_seconds() -> None:
    pulse = Pulse()
    for tenth in range(100):
        pulse.add(NOW + tenth / 10, 50)
    assert pulse.rate(NOW + 9.9) == pytest.approx(500, rel=0.1)
    assert pulse.rate(NOW + 30) == 0


def test_a_run_that_has_just_begun_is_not_slow() -> None:
    pulse = Pulse()
    for tenth in range(10):
        pulse.add(NOW + tenth / 10, 100)
    assert pulse.rate(NOW + 1) == pytest.approx(1_000, rel=0.3)


def test_columns_of_a_sparkline_keep_their_values_while_they_move() -> None:
    pulse = Pulse()
    for second in range(20):
        pulse.add(NOW + second, second)
    before, after = pulse.columns(NOW + 19.9, 10), pulse.columns(NOW + 20.1, 10)
    assert before[1:] == after[:-1]


def test_a_pulse_forgets_what_is_long_ago() -> None:
    pulse = Pulse()
    for second in range(10_000):
        pulse.add(NOW + second, 1)
    assert len(pulse._slots) < 2_000
    assert pulse.rate(NOW + 9_999.5) == pytest.approx(1, rel=0.4)


# --- columns ------------------------------------------------------------------------------------------

MILLION = {"total": 1_000_000, "running": 800, "error": 1_234, "interrupted": 500_000}


def names(width: int, widest: dict[str, int]) -> list[str]:
    return [column.name for column in run_columns(width, widest, id_width=8, topic_width=14)]


@pytest.mark.parametrize("width", [*range(59, 131), 159, 199, 239])
@pytest.mark.parametrize("widest", [{}, {"total": 12_400}, MILLION])
def test_columns_fit_every_width(width: int, widest: dict[str, int]) -> None:
    columns = run_columns(width, widest, id_width=12, topic_width=14)
    assert total_width(columns) <= width


def test_eighty_columns_show_the_essential() -> None:
    assert names(79, MILLION) == ["status", "run", "topic", "bar", "pending", "running", "success", "error"]


def test_a_hundred_and_twenty_columns_show_everything() -> None:
    assert set(names(119, MILLION)) == {
        *("status", "run", "topic", "bar", "total", "pending", "running", "success"),
        *("error", "stopped", "rate", "eta", "age"),
    }


def test_the_status_is_a_word_where_there_is_room() -> None:
    def status_at(width: int) -> str:
        columns = run_columns(width, {"total": 12_400}, id_width=8, topic_width=9)
        return plain(run_row(BIG, columns, NOW)[0])

    assert status_at(79) == "▶"
    assert status_at(119) == "▶ running"
    assert status_at(199) == "▶ running"


@pytest.mark.parametrize("width", [79, 119, 159, 199])
def test_no_number_is_ever_cut(width: int) -> None:
    columns = run_columns(width, MILLION, id_width=12, topic_width=14)
    shown = run("interrupted", success=498_766, error=1_234, interrupted=500_000)
    for column, cell in zip(columns, run_row(shown, columns, NOW), strict=True):
        if column.right:
            assert len(plain(cell)) <= column.width


# --- the lines of a run -------------------------------------------------------------------------------


def test_every_task_is_accounted_for_in_one_line() -> None:
    (said,) = head.conservation(BIG, 198, agrees=None)
    assert plain(said) == (
        "1,000,000 total = 371,204 pending + 612 running + 627,990 success + 194 error + 0 interrupted"
        "   ✓ holds at event 48,211"
    )


@pytest.mark.parametrize("width", [58, 78, 99, 118, 198])
def test_the_conservation_line_is_not_cut(width: int) -> None:
    for said in head.conservation(BIG, width, agrees=True):
        assert len(plain(said)) <= width


def test_the_mark_says_how_it_is_known_that_the_counts_add_up() -> None:
    wrong = RunView(**{name: getattr(BIG, name) for name in BIG.__slots__} | {"counts": Counts(total=3, success=2)})
    assert "holds" in plain(head.proof(BIG, agrees=None))
    assert "proven" in plain(head.proof(BIG, agrees=True))
    assert "disproved" in plain(head.proof(BIG, agrees=False))
    (note,) = head.run_notes(BIG, 78, served=True, agrees=False)
    assert plain(note).endswith(f"corral verify {BIG.id}")
    assert "does not add up" in plain(head.proof(wrong, agrees=None))


def test_an_interrupt_names_its_impact_and_its_receipt() -> None:
    assert view.impact_text(BIG) == "removes 371,204 queued, stops 612 running; 628,184 stay done"
    receipt = Receipt(removed=371_204, stopped=609, finished_first=3, seconds=0.084)
    assert view.receipt_text(receipt) == "stopped in 84 ms: 371,204 removed, 609 stopped, 3 finished first"
    killed = Receipt(removed=1, stopped=2, killed=3, finished_first=4, seconds=75)
    assert view.receipt_text(killed) == "stopped in 1 m 15 s: 1 removed, 2 stopped, 3 killed, 4 finished first"


def test_a_retry_names_what_it_brings_back() -> None:
    assert view.retry_text(run("failed", success=7, error=1)) == "brings back 1 error; 7 stay done"
    assert view.retry_text(run("interrupted", interrupted=9)) == "brings back 9 interrupted; 0 stay done"
    both = run("interrupted", success=4_000, error=1_234, interrupted=2)
    assert view.retry_text(both) == "brings back 1,234 errors and 2 interrupted; 4,000 stay done"


def test_a_queued_run_that_nobody_serves_says_so() -> None:
    waiting = run("queued", pending=1)
    (note,) = head.run_notes(waiting, 78, served=False, agrees=None)
    assert "no worker serves reindex" in plain(note)
    assert head.run_notes(waiting, 78, served=True, agrees=None) == []


# --- the line of truth --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "said"),
    [
        (Link(phase="connecting", since=NOW - 2), "◌ connecting 2 s"),
        (Link(phase="offline", since=NOW - 12), "○ offline 12 s"),
        (Link(phase="live", since=NOW), "◌ reading"),
        (Link(phase="live", since=NOW, ready=True), "records current  ● live"),
    ],
)
def test_the_state_of_the_connection_is_a_glyph_and_a_word(link: Link, said: str) -> None:
    assert plain(view.truth_right(Truth(link=link), NOW, 120)) == said


def test_records_that_stand_still_are_spoken_of() -> None:
    silent = Truth(link=Link(phase="live", ready=True), unheard=9.0)
    assert plain(view.truth_right(silent, NOW, 80)) == "◌ no answer for 9 s"
    assert "workers" not in plain(view.truth_left(silent, 80))
    truth = Truth(link=Link(phase="live", ready=True), stale=12)
    assert plain(view.truth_right(truth, NOW, 80)) == "records 12 s old  ● live"


def test_an_empty_list_says_what_to_type_next() -> None:
    link = Link(phase="live", ready=True)
    served = "\n".join(plain(text) for text in view.empty_lines(link, ["import-csv", "reindex"], NOW))
    assert "corral start import-csv '{...}'" in served
    unserved = "\n".join(plain(text) for text in view.empty_lines(link, [], NOW))
    assert "corral start TOPIC" in unserved
    assert "corral up APP" in unserved


# --- the filter ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("", True),
        ("reindex", True),
        ("7qk2", True),
        ("product/7", True),
        ("nightly", False),
        ("!nightly", True),
        ("!reindex", False),
        ("status:running", True),
        ("status:run", True),
        ("status:failed", False),
        ("status:live", True),
        ("!status:live", False),
        ("topic:reindex-entity", True),
        ("topic:mail", False),
        ("REINDEX !status:failed topic:re", True),
        ("reindex status:failed", False),
        ("status:", True),
        ("!", True),
    ],
)
def test_the_filter(typed: str, shown: bool) -> None:
    assert fits(parse(typed), run(pending=1, unique="Product/7")) is shown

"""The workers on a run: what each executes of it now, and what it has done."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from textual.app import ComposeResult

from corral_tui.columns import share_columns
from corral_tui.look import Look
from corral_tui.rows import share_row
from corral_tui.tabs.base import Tab
from corral_tui.values import ShareView
from corral_tui.widgets.table import Table


class WorkersTab(Tab):
    """A row for each worker that executes something of the run, or has."""

    TITLE = "Workers"
    _shares: dict[str, ShareView] = {}  # noqa: RUF012  replaced, never changed

    def compose(self) -> ComposeResult:
        yield Table(id="shares", empty="no worker has had anything of it yet")

    def labels(self, look: Look) -> tuple[str, ...]:
        at_work = sum(share.running > 0 for share in look.shares)
        said = f"Workers {at_work}" if at_work else self.TITLE
        return said, said, self.TITLE

    def paint(self, look: Look) -> None:
        shares, now = {share.worker: share for share in look.shares}, look.now
        self._shares = shares
        columns = share_columns(self.size.width - 1, max((share.success for share in shares.values()), default=0))
        self.query_one(Table).show(
            columns, list(shares), lambda key: share_row(share, columns, now) if (share := shares.get(key)) else None
        )

    def take_focus(self) -> None:
        self.query_one(Table).focus()

    def copied(self) -> str:
        return self.query_one(Table).cursor or ""

    def exported(self) -> Any:
        return [asdict(share) for share in self._shares.values()]

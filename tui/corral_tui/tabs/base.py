"""What the tabs of the run screen have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.containers import Container

from corral_tui.fold import Detail
from corral_tui.look import Look
from corral_tui.spans import Line

if TYPE_CHECKING:
    from corral_tui.app import Dashboard


class Tab(Container):
    """One part of a run. The state's lock is held while a method is called that takes a look."""

    TITLE: ClassVar[str]
    DEFAULT_CSS = """
    Tab { height: 1fr; display: none; }
    """

    @property
    def dashboard(self) -> Dashboard:
        return cast("Dashboard", self.app)

    @abstractmethod
    def labels(self, look: Look) -> tuple[str, ...]:
        """Its name with what is in it, and shorter ones for where there is less room."""

    @abstractmethod
    def paint(self, look: Look) -> None:
        """Show what is known of the run."""

    @abstractmethod
    def take_focus(self) -> None:
        """Let the keys work here."""

    @abstractmethod
    def copied(self) -> str:
        """What is worth copying of what the cursor is on; empty if nothing is."""

    @abstractmethod
    def exported(self) -> Any:
        """What is shown, as JSON."""

    def said(self) -> Line:
        """What has been done here, for the line of notices."""
        return ()

    def hint(self, detail: Detail) -> str:
        """What it leaves out, or how it is used."""
        del detail
        return ""

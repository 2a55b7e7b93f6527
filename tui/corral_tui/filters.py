"""What is typed after `/`: which runs to show."""

from __future__ import annotations

from dataclasses import dataclass

from corral.runs import ENDED
from corral_tui.values import RunView

_ALIASES = {"error": "failed", "errors": "failed", "ok": "success", "stopped": "interrupted", "pending": "queued"}
HELP = "text   status:failed   topic:reindex   !not   status:live"


@dataclass(frozen=True, slots=True)
class Term:
    """One word: `field` is `status`, `topic` or, for any text, empty."""

    field: str
    value: str
    negated: bool

    def fits(self, run: RunView) -> bool:
        return self._found(run) != self.negated

    def _found(self, run: RunView) -> bool:
        if self.field == "status":
            if self.value in ("live", "ended"):
                return (run.status in ENDED) == (self.value == "ended")
            return run.status.startswith(_ALIASES.get(self.value, self.value))
        if self.field == "topic":
            return self.value in run.topic.lower() or any(self.value in topic for topic in run.topics)
        texts = (run.id, run.topic, run.status, run.unique or "")
        return any(self.value in text.lower() for text in texts)


def parse(text: str) -> tuple[Term, ...]:
    """The words of a filter, all of which must fit; what is half typed (`status:`, `!`) is left out."""
    terms = []
    for typed in text.lower().split():
        negated = typed.startswith("!")
        word = typed[1:] if negated else typed
        field, colon, value = word.partition(":")
        if not (colon and field in ("status", "topic")):
            field, value = "", word
        if value:
            terms.append(Term(field, value, negated))
    return tuple(terms)


def fits(terms: tuple[Term, ...], run: RunView) -> bool:
    """Whether a run is shown."""
    return all(term.fits(run) for term in terms)

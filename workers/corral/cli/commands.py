"""What makes a function a command of `corral`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Command(NamedTuple):
    """A command: the function that carries it out and returns the exit code, and examples for its help."""

    function: Callable[..., int]
    examples: tuple[str, ...]

    @property
    def epilog(self) -> str:
        """The examples as the end of the help; the mark keeps their lines as they are."""
        return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in self.examples)


def command(*examples: str) -> Callable[[Callable[..., int]], Command]:
    """Make a function a command; its docstring is its help, its parameters are the options."""

    def make(function: Callable[..., int]) -> Command:
        return Command(function, examples)

    return make

"""Files that nobody else may read."""

from __future__ import annotations

import os
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Whole or not at all, in place of what is there, and readable by nobody else at any moment."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    write_new(new, content)
    new.replace(path)


def write_new(path: Path, content: bytes) -> None:
    """A file that was not there. FileExistsError if it was."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)

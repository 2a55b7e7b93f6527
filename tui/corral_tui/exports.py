"""What is shown, as JSON and as a picture in files."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from corral.runs import maybe_moment, moment, plain
from corral_tui.text import clean
from corral_tui.values import RunView


def run_json(run: RunView) -> dict[str, Any]:
    """A run as `corral show --json` has it."""
    return {
        "id": run.id,
        "topic": run.topic,
        "status": run.status,
        "root": run.root,
        "unique": run.unique,
        **plain(run.counts),
        "created_at": plain(moment(run.created_at)),
        "started_at": plain(maybe_moment(run.started_at)),
        "finished_at": plain(maybe_moment(run.finished_at)),
        "seq": run.sequence,
        "topics": plain(dict(run.topics)),
    }


def write(folder: Path, name: str, at: float, shown: Any, picture: str) -> list[Path]:
    """Both files, under names that no file has; OSError if that cannot be."""
    stem = f"corral-{name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(at))}"
    paths = [folder / f"{stem}.json", folder / f"{stem}.svg"]
    texts = [json.dumps(shown, indent=2, ensure_ascii=False, default=_plain) + "\n", picture]
    for path, text in zip(paths, texts, strict=True):
        with path.open("x", encoding="utf-8", errors="replace") as file:
            file.write(text)
    return paths


def _plain(value: Any) -> Any:
    """What JSON does not know: values as objects, all else as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return clean(str(value))

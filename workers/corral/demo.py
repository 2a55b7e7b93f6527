"""The app of `corral demo`: every file below some folders is hashed and parsed, and some of it fails.

One dispatcher walks the folders and sends each file to two processors. Nothing is made up: what is not
valid Python, JSON, TOML or UTF-8 ends as error.
"""

from __future__ import annotations

import ast
import asyncio
import codecs
import hashlib
import json
import os
import stat
import sysconfig
import threading
import tomllib
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from corral import App, Context, Reject, SyncContext, Topic

CHUNK = 1024 * 1024


class Folders(msgspec.Struct):
    """What a run goes through: files, and folders with all that is below them."""

    paths: list[str]
    skip: list[str] = []
    """Names of folders that are left out."""


class File(msgspec.Struct):
    """One file to work on."""

    path: str


DEMO = Topic("demo", Folders)
CHECKSUM = Topic("demo.checksum", File)
PARSE = Topic("demo.parse", File)


@asynccontextmanager
async def quietly() -> AsyncIterator[None]:
    """Old code has warnings for whoever compiles it; they are not what is shown here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


app = App(lifespan=quietly)
_parsing = threading.Lock()


def folders(paths: Sequence[str | Path] = ()) -> Folders:
    """The message for `paths`; without any, for the standard library and the packages of this Python."""
    if paths:
        return Folders([str(Path(path).resolve()) for path in paths])
    installed = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    # Of an environment's own packages there are two folders on some systems; the standard library's folder
    # may hold those of another environment.
    return Folders(sorted(installed), skip=["__pycache__", "site-packages", "dist-packages"])


def same_folders(message: Folders) -> str:
    """One run at a time for a set of paths, however they are written; a key is 1 kB at most."""
    paths = os.pathsep.join(sorted({os.path.realpath(path) for path in message.paths}))
    return paths if len(paths.encode()) <= 1000 else hashlib.sha256(paths.encode()).hexdigest()


@app.processor(DEMO, unique=same_folders)
async def walk(message: Folders, ctx: Context[None]) -> None:
    """Send every file to both processors, folder by folder, so that work begins at once."""
    found = 0
    listing = list_folders(message)
    while (files := await asyncio.to_thread(next, listing, None)) is not None:
        for path in files:
            await ctx.send(CHECKSUM, File(path))
            await ctx.send(PARSE, File(path))
        found += len(files)
    if not found:
        raise Reject(f"no files in {', '.join(message.paths) or 'an empty list of paths'}")


@app.processor(CHECKSUM)
def checksum(message: File, ctx: SyncContext[None]) -> None:
    """Hash a file; hashing leaves the other threads running."""
    digest = hashlib.sha256()
    with Path(message.path).open("rb") as file:
        while chunk := file.read(CHUNK):
            ctx.check()
            digest.update(chunk)
    ctx.log.debug("%s  %s", digest.hexdigest(), message.path)


@app.processor(PARSE, concurrency=2)
def parse(message: File, ctx: SyncContext[None]) -> None:
    """Parse a file as what its name says. Python does that in one thread at a time, so more would only take turns."""
    path = Path(message.path)
    match path.suffix:
        case ".py":
            # One thread at a time: where they take turns in it, Python 3.11 may lose count of its depth, and then it
            # fails on every file.
            with _parsing:
                ast.parse(path.read_bytes(), message.path)
        case ".json":
            json.loads(path.read_bytes())
        case ".toml":
            tomllib.loads(path.read_text("utf-8"))
        case _:
            decode(path, ctx)


def decode(path: Path, ctx: SyncContext[None]) -> None:
    """Read a file of any size as UTF-8, and stop in the middle when the run is interrupted."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            ctx.check()
            decoder.decode(chunk)
    decoder.decode(b"", final=True)


def list_folders(message: Folders) -> Iterator[list[str]]:
    """The files of one folder after the other; each folder once, and no link to a folder is followed."""
    seen: set[tuple[int, int]] = set()
    waiting = [Path(path) for path in sorted(message.paths, reverse=True)]
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            inside = sorted(folder.iterdir())
        except OSError:
            # A file, or a folder that is gone or may not be read: processing it will say so.
            yield [str(folder)]
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            below = [path for path in inside if path.is_dir() and not path.is_symlink()]
            waiting += reversed([path for path in below if path.name not in message.skip])
            yield [str(path) for path in inside if not path.is_dir() and is_workable(path)]


def is_workable(path: Path) -> bool:
    """False for a device or a pipe, which would never end, and for a name that no message can hold."""
    try:
        str(path).encode()
        return stat.S_ISREG(path.stat().st_mode)
    except UnicodeEncodeError:
        return False
    except OSError:
        return True  # a link to nowhere or a file without permission fails when it is processed

"""Finds the app that a command names: `module`, `module:attribute` or `file.py`, from the current folder."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from corral.errors import AppNotFound, BadApp, BadName
from corral.processor import App


def load_app(spec: str) -> App[Any]:
    """Import the app. Without an attribute it is the module's `app`, or its only App.

    Raises:
        AppNotFound: nothing there, or it cannot be imported; the reason says which.
    """
    where, _, attribute = spec.partition(":")
    module = _import(spec, where)
    if attribute:
        found = getattr(module, attribute, None)
        if not isinstance(found, App):
            what = "is not there" if found is None else f"is a {type(found).__name__}, not an App"
            raise AppNotFound(spec, f"{attribute!r} {what}{_apps_hint(module)}")
        return found
    found = getattr(module, "app", None)
    if isinstance(found, App):
        return found
    apps = _apps(module)
    if len(apps) != 1:
        raise AppNotFound(spec, f"the module has {'no' if not apps else 'more than one'} App{_apps_hint(module)}")
    return next(iter(apps.values()))


def _import(spec: str, where: str) -> ModuleType:
    if not where:
        raise AppNotFound(spec, "give a module, module:attribute, or a file.py")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        if where.endswith(".py"):
            return _import_file(spec, Path(where))
        return importlib.import_module(where)
    except AppNotFound:
        raise
    except ModuleNotFoundError as error:
        if error.name == where or (error.name and where.startswith(f"{error.name}.")):
            hint = f"; for a file, write {where}.py" if Path(f"{where}.py").exists() else ""
            raise AppNotFound(spec, f"there is no module {error.name!r} here or installed{hint}") from None
        raise AppNotFound(spec, f"importing it failed: {error}") from error
    except (BadApp, BadName) as error:
        raise AppNotFound(spec, str(error)) from error
    except Exception as error:
        raise AppNotFound(spec, f"importing it failed: {type(error).__name__}: {error}") from error


def _import_file(spec: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise AppNotFound(spec, "there is no such file")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # so that it finds its neighbours
    loader = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if loader is None or loader.loader is None:
        raise AppNotFound(spec, "it is not a Python file")
    module = importlib.util.module_from_spec(loader)
    sys.modules[path.stem] = module  # annotations are resolved there
    try:
        loader.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(path.stem, None)
        raise
    return module


def _apps(module: ModuleType) -> dict[str, App[Any]]:
    return {name: value for name, value in vars(module).items() if isinstance(value, App)}


def _apps_hint(module: ModuleType) -> str:
    names = ", ".join(_apps(module))
    return f"; it has: {names}" if names else ""

"""The documents: what they link to exists, and the code in them runs."""

import re
import sys
import types
from pathlib import Path

import msgspec
import pytest

from corral import App, Settings
from corral.settings import SHARED

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)#:]+)(?:#([^)]+))?\)")


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for path, heading in LINK.findall(document.read_text()):
        target = document.parent / path
        assert target.exists(), path
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert heading in [title.lower().replace(" ", "-") for title in headings], heading


def test_the_programs_of_the_readme_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    processors, program = blocks(ROOT / "README.md", "python")
    newsletter = types.ModuleType("newsletter")
    monkeypatch.setitem(sys.modules, "newsletter", newsletter)
    exec(processors, newsletter.__dict__)
    assert isinstance(newsletter.app, App)
    assert set(newsletter.app.processors) == {"newsletter", "newsletter.mail"}
    exec(program, {})


def test_the_programs_of_the_python_page_run_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    page = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)  # annotations are looked up there
    for program in blocks(ROOT / "docs" / "python.md", "python"):
        exec(program, page.__dict__)
    assert set(page.app.processors) == {"report", "report.page", "report.archive"}


def test_every_setting_stands_in_its_document_with_its_default() -> None:
    rows = re.findall(
        r"^\| `CORRAL_(\w+)`( \*)? \| (\S+) \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE
    )
    defaults = {field.name.upper(): field.default for field in msgspec.structs.fields(Settings)}
    assert {name: type(defaults[name])(default) for name, _, default in rows} == defaults
    assert {name.lower() for name, shared, _ in rows if shared} == set(SHARED)


def test_every_target_of_the_makefile_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        assert set(re.findall(r"`?make ([a-z]+)`", document.read_text())) <= targets, document

"""What the code never does with what others have stored or sent: execute it, or decode it where errors escape."""

from __future__ import annotations

import ast
import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.errors import Unreadable
from tests.unit.mutants import BOMBS, mutants
from tests.unit.targets import EXAMPLES, SEED, TARGETS

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("workers/**/*.py"), *ROOT.glob("tui/**/*.py")])
NAMES = [str(path.relative_to(ROOT)) for path in FILES]

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "code", "codeop", "pty", "yaml", "xml"}
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput",
    "subprocess.getstatusoutput", "asyncio.create_subprocess_shell",
}  # fmt: skip
DECODING = {
    "corral/decoding.py": "the place where other errors become ours",
    "corral/processor.py": "the user's type: `executor.execute` takes whatever is raised as the task's failure",
    "corral/keys.py": "the fields of a key, where any error means that the key is left to the worker",
    "corral/cli/messages.py": "the message on the command line, with an error that helps whoever types it",
    "corral/isolated_process.py": "what its own worker writes",
    "corral/worker_process.py": "what its own pool writes",
    "corral/demo.py": "files of the demo, whose errors are what it shows",
    "corral/server_folder.py": "what the server itself writes",
    "corral_tui/describe.py": "a body to be shown; as text if it is no JSON",
}
"""Where JSON is decoded, and why no error can escape there."""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_nothing_that_was_read_is_executed(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not MODULES & {name.name.partition(".")[0] for name in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").partition(".")[0] not in MODULES
    for name, call in calls(path):
        # `re.compile` and others are methods of something; only the built-in takes code.
        assert name not in CALLS, f"{name} in line {call.lineno}"
        assert not any(keyword.arg == "shell" for keyword in call.keywords), f"a shell in line {call.lineno}"


def test_json_is_decoded_only_where_no_other_error_can_escape() -> None:
    where = set()
    for path in FILES:
        for name, _ in calls(path):
            if name in ("json.loads", "json.load") or name.endswith(
                (".json.decode", ".json.Decoder", "msgpack.Decoder")
            ):
                where.add("/".join(path.parts[len(ROOT.parts) + 1 :]))
    assert where == set(DECODING)


def decoders() -> Iterator[tuple[str, str]]:
    """(module, name) of all that decodes what others have stored or sent."""
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if ast.unparse(node.value.func) in ("decoder", "packed_decoder"):
                    yield ".".join(path.relative_to(ROOT).with_suffix("").parts[1:]), ast.unparse(target)


def test_the_decoders_are_found() -> None:
    """Else what is said of every one of them would hold of none."""
    assert set(decoders()) >= {
        ("corral.events", "_decode"),  # an assignment
        ("corral.questions", "decode_questions"),  # one with a type
        ("corral.checkpoint_reading", "decode_head"),  # packed
    }


@pytest.mark.parametrize(("module", "name"), list(decoders()), ids=lambda part: part)
def test_every_decoder_gives_a_value_or_says_that_there_is_none(module: str, name: str) -> None:
    decode = getattr(importlib.import_module(module), name)
    samples = [sample for target in TARGETS.values() for sample in target.samples]
    for data in [*BOMBS.values(), *mutants(samples, EXAMPLES // 3, SEED)]:
        with contextlib.suppress(Unreadable):
            decode(data)

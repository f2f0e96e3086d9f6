"""The house stands as it was drawn: imports go down only, heavy ones in one place."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest

from core.errors import StrataError
from deploy.cli import COMMANDS

ROOT = Path(__file__).parents[1]
FLOORS = ["core", "calib_data", "exporter", "deploy"]  # from the ground up
HEAVY = ["torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "cv2", "ray"]
# Of the comparison, from the ground up; its own modules stand on all of them.
STOREYS = ["values", "graphs", "sums", "sides", "judging", "output"]
SOURCES = sorted(p for floor in FLOORS for p in (ROOT / floor).rglob("*.py"))


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path):
    floor = FLOORS.index(path.relative_to(ROOT).parts[0])
    above = imported(path) & set(FLOORS[floor + 1 :])
    assert not above, f"{path} on floor {FLOORS[floor]} imports {above} from above"


def storeys_of(path: Path) -> set[str]:
    """Return the parts of the comparison that a file imports."""
    named = [n.module or "" for n in ast.walk(ast.parse(path.read_text()))
             if isinstance(n, ast.ImportFrom)]  # fmt: skip
    own = [name.split(".") for name in named if name.startswith("deploy.comparison.")]
    return {parts[2] for parts in own}


@pytest.mark.parametrize("at", range(len(STOREYS)), ids=STOREYS)
def test_imports_of_the_comparison_go_down_only(at):
    files = sorted((ROOT / "deploy" / "comparison" / STOREYS[at]).glob("*.py"))
    assert len(files) > 1
    for path in files:
        above = storeys_of(path) - set(STOREYS[: at + 1])
        assert not above, f"{path} of {STOREYS[at]} imports {above} from above"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_is_read_in_one_sitting(path):
    lines = path.read_text().count("\n")
    assert lines <= 400, f"{path} has {lines} lines; split it where the idea splits"


def test_command_modules_import_nothing_heavy():
    modules = ["deploy", "exporter", "calib_data", *(f"deploy.cli.{name}" for name in COMMANDS)]
    code = (
        f"import importlib, sys\nfor m in {modules!r}: importlib.import_module(m)\n"
        f"print([h for h in {HEAVY!r} if h in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_command_says(name):
    command = importlib.import_module(f"deploy.cli.{name}").command
    assert isinstance(command, click.Command)
    assert command.name == name
    assert (command.help or "").partition("\n")[0] == COMMANDS[name]


def test_exit_codes_differ_by_kind():
    kinds = [StrataError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes)


def test_errors_are_not_asserted():
    """`python -O` removes asserts: a user's mistake must survive it."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert not found, f"asserts in product code: {found}"

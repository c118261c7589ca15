"""The wheel, built and used from another folder: what is shipped is found there."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_holds_the_package_and_its_models_but_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "tfcseg/assets/models.json" in names
    shipped = json.loads((ROOT / "assets" / "models.json").read_text())["models"]
    assert {f"tfcseg/assets/{entry['file']}" for entry in shipped.values()} <= set(names)
    assert "tfcseg/py.typed" in names
    assert {f"tfcseg/report/templates/{name}" for name in ("base.html", "page.css", "player.js")} <= set(names)
    assert {f"tfcseg/labels/data/{path.name}" for path in (ROOT / "tfcseg/labels/data").iterdir()} <= set(names)
    assert not any(name.startswith("tests/") for name in names)
    assert not any(name.endswith((".mp4", ".jpg", ".png")) for name in names)


def test_models_are_found_from_another_folder(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    here = tmp_path / "elsewhere"
    here.mkdir()
    code = (
        "import json, sys, tfcseg; model = tfcseg.load_model(device='cpu'); "
        "json.dump([tfcseg.__file__, model.card.name], sys.stdout)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    file, name = json.loads(done.stdout)
    assert Path(file).is_relative_to(tmp_path)
    assert name == json.loads((ROOT / "assets" / "models.json").read_text())["default"]

"""Models of the Hugging Face hub: from its cache, from a server of its protocol only if that is allowed."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import tfcseg
from tests.helpers.command_line import call
from tests.helpers.segformer_reference import build_reference
from tfcseg.errors import WeightsError
from tfcseg.weights.hub import HubName, hub_name

pytest.importorskip("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
README = "---\nlicense: other\nlicense_name: research-only\n---\n# Streets\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("published")
    build_reference("b0", embed_dim=16, num_classes=19).save_pretrained(path)
    (path / "README.md").write_text(README)
    return path


@pytest.fixture
def cache(folder, tmp_path, monkeypatch):
    """The cache as huggingface_hub lays it out, with one revision of one model."""
    root = tmp_path / "cache"
    snapshot = root / "models--lab--streets" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        (snapshot / path.name).symlink_to(path)
    (root / "models--lab--streets" / "refs").mkdir()
    (root / "models--lab--streets" / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root))
    return root


def test_names_of_the_hub_are_told_from_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab").mkdir()
    assert hub_name("lab/streets") == HubName("lab/streets", None)
    assert hub_name("lab/streets@v1.0") == HubName("lab/streets", "v1.0")
    (tmp_path / "lab" / "streets").mkdir()
    for text in (
        "lab/streets",
        "default",
        "./lab/x",
        "/lab/x",
        "lab/x.safetensors",
        "lab/x.pth",
        "a/b/c",
        "../x",
        "lab/",
    ):
        assert hub_name(text) is None, text


def test_what_is_in_the_cache_needs_no_network(cache):
    for name in ("lab/streets", f"lab/streets@{COMMIT}"):
        model = tfcseg.load_model(name, device="cpu")
        assert (model.card.name, model.card.licence) == ("lab/streets", "research-only")
    shown = call("models", "lab/streets")
    assert shown.returncode == 0, shown.stderr
    assert "research-only" in shown.stdout


def test_what_is_not_in_the_cache_is_not_fetched_unasked(cache, tmp_path):
    with pytest.raises(WeightsError, match="no file or folder 'lab/other', and no such model in the cache"):
        tfcseg.load_model("lab/other")
    done = call("run", "clip.mp4", "-m", "lab/streets@v2", "-o", tmp_path / "out")
    assert (done.returncode, "--allow-network fetches it" in done.error) == (1, True)
    with pytest.raises(tfcseg.WeightsError, match="allow_network=True fetches it"):
        tfcseg.segment("clip.mp4", "lab/other")


@pytest.mark.parametrize("name", ["runs--old/best", "runs/best.", "a..b/c", "lab/x.git"])
def test_names_that_the_hub_cannot_have_are_told_like_missing_files(cache, name):
    with pytest.raises(WeightsError, match=f"no file or folder '{name}'"):
        tfcseg.load_model(name)


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install huggingface_hub"):
        tfcseg.load_model("lab/streets")


class _Hub(http.server.BaseHTTPRequestHandler):
    """The two parts of the hub's protocol that are needed: facts of a model, and its files at a commit."""

    folder: Path
    asked: list[str]

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, *, with_body):
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        file = self.folder / path.rpartition("/")[2]
        if "/tree/" in path:
            files = [path for path in self.folder.iterdir() if path.is_file()]
            tree = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": COMMIT} for f in files]
            body, kind = json.dumps(tree).encode(), "application/json"
        elif path.startswith("/api/models/lab/streets"):
            names = [{"rfilename": each.name} for each in self.folder.iterdir()]
            facts = {"id": "lab/streets", "sha": COMMIT, "siblings": names, "tags": [], "private": False}
            facts["cardData"] = {"license": "other", "license_name": "research-only"}
            body, kind = json.dumps(facts).encode(), "application/json"
        elif "/resolve/" in path and file.is_file():
            body, kind = file.read_bytes(), "application/octet-stream"
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{file.name}"')
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def test_with_permission_it_is_fetched_once_and_its_licence_said_first(folder, tmp_path):
    _Hub.folder, _Hub.asked = folder, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }

    def convert(name, target, *more):
        words = [sys.executable, "-m", "tfcseg", "convert", name, str(tmp_path / target), *more]
        return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)

    try:
        done = convert("lab/streets", "a.safetensors", "--allow-network")
        assert done.returncode == 0, done.stderr
        assert "its licence: research-only, other" in done.stderr
        fetched = len(_Hub.asked)
        again = convert("lab/streets", "b.safetensors", "--allow-network")  # what is there stays as it is
        assert again.returncode == 0, again.stderr
        assert len(_Hub.asked) == fetched
        missing = convert("lab/none", "c.safetensors", "--allow-network")
        assert missing.returncode == 1
        assert "lab/none cannot be fetched from the Hugging Face hub" in missing.stderr
    finally:
        server.shutdown()
        server.server_close()
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()

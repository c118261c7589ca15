"""The README tells the truth: its tables are the measurements, its commands and options exist, its Python runs."""

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

import tfcseg
from tfcseg.cli import app
from tfcseg.inference import both_sides, groups, links, onnx_graphs, steadying, votes
from tfcseg.media import streams, writer
from tfcseg.model import evidence
from tfcseg.model.options import LONGEST
from tfcseg.research import tables
from tfcseg.training.options import AdaptOptions

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    (ROOT / "assets" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("commands", "exports", "live", "measurements", "training")
]
MARKDOWN = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "assets").glob("*.md"))]


def test_readme_is_short_and_starts_with_a_command():
    assert len(README.split()) <= 1250
    lines = README.splitlines()
    assert next(number for number, line in enumerate(lines, 1) if line.startswith("$ tfcseg run")) <= 25


def anchor(heading):
    """The address that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not link.startswith("https://"):
            name, _, section = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            assert target.exists(), link
            if section:
                headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
                assert section in map(anchor, headings), link


def test_tables_are_the_committed_measurements():
    assert tables.MARKED.search(README)
    for document in tables.documents(ROOT):
        text = document.read_text(encoding="utf-8")
        assert tables.with_tables(text, ROOT) == text, "run tfcseg research tables"


def test_measurements_were_made_with_the_shipped_model():
    shipped = {
        entry["sha256"] for entry in json.loads((ROOT / "assets" / "models.json").read_text())["models"].values()
    }
    results = sorted((ROOT / "assets" / "results").glob("*.json"))
    assert results
    for path in results:
        content = json.loads(path.read_text(encoding="utf-8"))
        # Random weights measure speed alone, and those without L_bce are compared with others trained as long.
        # Masks of another program are not made by a model at all; adaptations are of a user's.
        if not any(content.get(key) for key in ("random_weights", "without_bce", "predictions", "with_curve")):
            for model in content.get("models") or [content["model"]]:
                assert model["sha256"] in shipped, path.name


def commands():
    text = "\n".join([README, *PAGES])
    inline = re.findall(r"`(tfcseg [^`]+)`", text)
    shown = re.findall(r"^\$ (.+)$", text, flags=re.MULTILINE)
    return inline + [part.strip() for line in shown for part in line.split("&&") if part.strip().startswith("tfcseg")]


@pytest.mark.parametrize("line", commands())
def test_commands_and_options_exist(line):
    words = [word.replace("...", "") for word in shlex.split(line.replace("\\|", "|"), comments=True)]
    command = get_command(app).commands[words[1]]
    if words[1] == "research":
        command = command.commands[words.pop(2)]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
    for word in words[2:]:
        if word.startswith("-") and word != "-":
            assert word in known, f"{words[1]} has no {word}"


def test_options_of_the_table_exist():
    run = get_command(app).commands["run"]
    known = {name for option in run.params for name in (*option.opts, *option.secondary_opts)}
    rows = re.findall(r"^\| `(--[a-z].*?) \|", README + PAGES[0], flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"--[a-z-]+", row)}
    assert len(named) > 8
    assert named <= known


def test_python_example_runs(tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "demo.mp4").symlink_to(ROOT / "assets" / "demo.mp4")
    short = code.replace('"out")', '"out", end_s=0.3)').replace(
        '("assets/demo.mp4"):', '("assets/demo.mp4", end_s=0.3):'
    )
    assert short.count("end_s") == 2
    names = {}
    exec(compile(short, "README.md", "exec"), names)
    assert (tmp_path / "out" / "overlay.mp4").exists()
    assert names["frame"].labels.max() < len(names["frame"].label_set)


def test_pages_state_the_settings_of_the_code():
    section = f"{groups.SECTION_PARTS * writer.PART_FRAMES:,} frames"
    stated = {
        "method": [
            f"min(n_o, {evidence.MOST_WEIGHT:g})",
            f"1 − e / {evidence.ENOUGH_EVIDENCE} where e < {evidence.ENOUGH_EVIDENCE}",
            f"at least {100 * evidence.LEAST_COMPUTED_SHARE:g} % of the positions",
            f"w < {evidence.CHANGED}",
            f"1 + (d / {evidence.HALVING_DIFFERENCE})²",
            f"add up to {both_sides.MOST_CHANGED}",
            f"the next {both_sides.REACH} frames",
            f"after {LONGEST} intervals",
            section,
            f"last {writer.PART_FRAMES} frames",
        ],
        "machines": [section, f"last {writer.PART_FRAMES} frames"],
        "steady": [
            f"less than {100 * links.SAME_SCENE:g} %",
            f"fade by {votes.CARRY} ·",
            f"{steadying.REACH} frames before and after a block of {steadying.BLOCK * steadying.REACH}",
            f"power of −{steadying.RARITY}",
        ],
        "training": [f"by default {AdaptOptions().steps}"],
        "live": [f"for {streams.LIVE_TIMEOUT_S:g} seconds"],
        "exports": [f"at least {100 * onnx_graphs.LEAST_AGREEMENT:g} %"],
    }
    for name, words in stated.items():
        page = " ".join((ROOT / "assets" / f"{name}.md").read_text(encoding="utf-8").split())
        for each in words:
            assert each in page, f"{name}.md: {each}"


@pytest.mark.parametrize("script", sorted((ROOT / "assets").glob("*.py")), ids=lambda path: path.stem)
def test_scripts_find_what_they_import(script):
    assert callable(runpy.run_path(str(script), run_name="imported")["main"])


def test_public_names_exist():
    for name in tfcseg.__all__:
        assert getattr(tfcseg, name) is not None
    with pytest.raises(AttributeError):
        tfcseg.no_such_name  # noqa: B018


def test_files_speak_of_the_project_alone():
    tracked = [README, *PAGES, (ROOT / "CHANGELOG.md").read_text(), (ROOT / "assets" / "README.md").read_text()]
    tracked += [path.read_text(encoding="utf-8") for path in (ROOT / "assets" / "results").glob("*.json")]
    for text in tracked:
        assert not re.search(r"/(home|root|tmp|work|Users)/", text)

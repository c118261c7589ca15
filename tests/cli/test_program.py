"""The program around the commands: interrupts, readers that leave, and bugs."""

import json
import subprocess
import sys

import pytest
import typer

from tests.helpers.command_line import call
from tfcseg.cli.program import Program
from tfcseg.errors import Interrupted, WeightsError


def interrupted(*arguments):
    raise KeyboardInterrupt


def test_an_interrupt_is_one_line_and_130(monkeypatch, tmp_path):
    monkeypatch.setattr("tfcseg.weights.registry.list_models", interrupted)
    done = call("models")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.error == "interrupted; unfinished files were removed"


def test_an_interrupt_between_the_programs_own_steps_is_one_line(capsys):
    program = typer.Typer(cls=Program)

    @program.callback(invoke_without_command=True)
    def root(context: typer.Context) -> None:
        context.call_on_close(interrupted)

    program.command("nothing")(lambda: None)
    with pytest.raises(SystemExit) as left:
        program(["nothing"])
    assert left.value.code == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_command_says_itself_what_an_interrupt_left(monkeypatch):
    def stopped(*arguments):
        raise Interrupted("interrupted; two masks are kept")

    monkeypatch.setattr("tfcseg.weights.registry.list_models", stopped)
    done = call("models")
    assert (done.returncode, done.error) == (130, "interrupted; two masks are kept")


def test_what_fails_is_one_line_and_1(monkeypatch):
    def fail(*arguments):
        raise WeightsError("no weights")

    monkeypatch.setattr("tfcseg.weights.registry.list_models", fail)
    done = call("models")
    assert (done.returncode, done.error) == (1, "no weights")


def test_a_reader_that_leaves_is_no_error():
    command = f"set -o pipefail; {sys.executable} -m tfcseg models --json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pipe_that_breaks_elsewhere_is_not_taken_for_a_reader_that_left(monkeypatch):
    def fail(*arguments):
        raise BrokenPipeError("the encoder's")

    monkeypatch.setattr("tfcseg.weights.registry.list_models", fail)
    with pytest.raises(BrokenPipeError):
        call("models")


@pytest.mark.parametrize("words", [("models",), ("run", "a.mp4", "-m"), ("steady", "a.mp4", "--masks"), ("export",)])
def test_a_name_that_no_file_can_have_is_one_line(words):
    done = call(*words, "x" * 300)
    assert (done.returncode, done.error) == (1, f"{'x' * 300}: File name too long")


def test_a_bug_keeps_its_traceback_and_leaves_it_in_the_log(monkeypatch, tmp_path):
    def fail(*arguments, **options):
        raise ZeroDivisionError("never")

    monkeypatch.setattr("tfcseg.doctor.checks.examine", fail)
    with pytest.raises(ZeroDivisionError):
        call("doctor", "--log-file", tmp_path / "log.jsonl")
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["message"] == "a bug in tfcseg"
    assert last["traceback"].endswith("ZeroDivisionError: never")

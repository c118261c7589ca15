"""``tfcseg doctor`` and ``tfcseg models``: what is installed, and whether it works."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tfcseg.cli import options
from tfcseg.cli.console import facts_table, new_table, plain, print_json, print_results, stderr
from tfcseg.inference.options import describe_method
from tfcseg.report.html import shown_number as number
from tfcseg.spelling import visible

if TYPE_CHECKING:
    from tfcseg.doctor.checks import Finding
    from tfcseg.labels.label_sets import LabelSet
    from tfcseg.weights.model_card import ModelCard

_COLOURS = {"ok": "green", "note": "yellow", "broken": "bold red"}


def doctor_command(
    as_json: options.Json = False, verbose: options.Verbose = False, log_file: options.LogFile = None
) -> None:
    """Check this installation and say what to do.

    Looks at libraries, ffmpeg, GPU and weights, and makes a short test run.

    Exit code 1 if anything that is required does not work.

    Example: tfcseg doctor
    """
    from tfcseg.doctor.checks import SCHEMA, examine

    with stderr.status("examining") as status:
        findings = examine(lambda name: status.update(f"examining: {name}"))
    broken = [finding.name for finding in findings if finding.status == "broken"]
    if as_json:
        print_json({"schema": SCHEMA, "is_healthy": not broken, "findings": findings})
    else:
        _print(findings, broken)
    if broken:
        raise typer.Exit(1)


def _print(findings: Sequence[Finding], broken: Sequence[str]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(f"[{_COLOURS[finding.status]}]{finding.status}[/]", plain(finding.name), plain(finding.found))
        if finding.advice is not None:
            table.add_row("", "", plain(f"-> {finding.advice}"))
    print_results(table, f"broken: {', '.join(broken)}" if broken else "Everything that is required works.")


_SCORES = {"mIoU": "tfc_miou", "VC8": "tfc_vc8", "VC16": "tfc_vc16"}
_MEANING = """\
* the default. In percent, in mode tfc, on {data}.
mIoU (accuracy) is over the classes that both the model and these data have, so
it does not compare models of different classes. VC: share of the pixels whose
label stays the same over 8 or 16 frames where the true label does.
tfcseg models NAME describes one, with the settings that it was measured with."""


def models_command(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Describe this model: classes, licence, training and scores.",
            autocompletion=options.completing(options.model_names),
            callback=options.on_disk,
        ),
    ] = None,
    allow_network: options.AllowNetwork = False,
    as_json: options.Json = False,
) -> None:
    """List the shipped models, or describe one: classes, scores.

    Example: tfcseg models default
    """
    from tfcseg.weights.loading import find_weights, read_card
    from tfcseg.weights.registry import list_models

    if name is not None:
        path, sha256 = find_weights(name)
        card = read_card(path)
        one = _facts(path, sha256, card)
        if as_json:
            print_json({**one, "class_names": card.labels.names, "palette": card.labels.palette})
        else:
            print_results(facts_table(_lines(card, one)), _class_list(card.labels))
        return
    facts = [
        {
            **_facts(record.path, record.sha256, read_card(record.path)),
            "name": record.name,
            "is_default": record.is_default,
        }
        for record in list_models()
    ]
    if as_json:
        print_json(facts)
        return
    table = new_table(["name", "backbone", "classes", "params", *_SCORES, "licence"])
    table.columns[1].justify = table.columns[-1].justify = "left"
    for model in facts:
        table.add_row(
            plain(model["name"] + (" *" if model["is_default"] else "")),
            plain(model["backbone"]),
            str(model["classes"]),
            f"{model['parameters'] / 1e6:.1f} M",
            *(number(model["measured"].get(key)) for key in _SCORES.values()),
            plain(model["licence"].split(";")[0]),
        )
    data = sorted({str(model["measured"].get("data", "unnamed data")) for model in facts})
    print_results(table, Text(_MEANING.format(data=visible(" and ".join(data)))))


def _lines(card: ModelCard, facts: dict[str, Any]) -> list[tuple[str, str]]:
    config = card.config
    scores = [f"{title} {number(card.measured[key])}" for title, key in _SCORES.items() if key in card.measured]
    where = [str(card.measured[key]) for key in ("data", "settings") if key in card.measured]
    return [
        ("name", card.name),
        ("description", card.description),
        ("licence", card.licence),
        ("trained on", card.trained_on),
        ("file", facts["path"]),
        ("size", f"{facts['parameters'] / 1e6:.1f} M parameters, {facts['size_bytes'] / 1e6:.1f} MB"),
        ("backbone", f"{config.backbone}, for frames of {card.preprocessing.size} px on the short side"),
        ("method", describe_method(config.defaults)),
        ("measured", f"{', '.join(scores)} on {', '.join(where) or 'unnamed data'}" if scores else "nothing"),
        ("classes", f"{len(card.labels)} ({card.labels.name})"),
    ]


def _class_list(labels: LabelSet) -> Text:
    """One line per class: index, colour and name."""
    return Text("\n").join(
        Text.assemble(f"{index:>4} ", ("██", f"#{bytes(colour).hex()}"), f" #{bytes(colour).hex()} {visible(name)}")
        for index, (name, colour) in enumerate(zip(labels.names, labels.palette, strict=True))
    )


def _facts(path: Path, sha256: str | None, card: ModelCard) -> dict[str, Any]:
    from tfcseg.weights.loading import count_parameters
    from tfcseg.weights.segformer_file import weights_in

    if path.is_dir():
        path = weights_in(path)
    return {
        "name": card.name,
        "path": str(path),
        "backbone": card.config.backbone,
        "labels": card.labels.name,
        "classes": len(card.labels),
        "parameters": count_parameters(card.config),
        "size_bytes": path.stat().st_size,
        "sha256": sha256 or hashlib.sha256(path.read_bytes()).hexdigest(),
        "licence": card.licence,
        "trained_on": card.trained_on,
        "measured": dict(card.measured),
        "description": card.description,
    }

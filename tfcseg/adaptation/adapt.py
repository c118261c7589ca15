"""Run an adaptation, from videos to a weights file: label → fit curve → train sparse attention → measure → save.

The network itself does not change: in mode ``image`` labels stay the same, bit for bit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from tfcseg.adaptation.evidence_fit import fit_evidence
from tfcseg.adaptation.measure import ONE_SIDE, SETTINGS, HeldBack, Scores, hold_back, measure
from tfcseg.adaptation.own_labels import Part, label_parts, split_videos
from tfcseg.errors import UsageError
from tfcseg.files import read_json_object, replace_atomically
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.options import checked_options
from tfcseg.media.source import fingerprint
from tfcseg.model.config import ModelConfig
from tfcseg.model.options import KEYFRAME_INTERVAL, SIZE_MULTIPLE
from tfcseg.report.schema import ModelConditions, model_conditions
from tfcseg.runs.outputs import folder_lock
from tfcseg.spelling import count_of, one_line
from tfcseg.training.datasets import ClipSource, PseudoClipSource, SampleStream, Source, Weighted
from tfcseg.training.loop import Trainer
from tfcseg.training.options import AdaptOptions
from tfcseg.training.recipes import VALIDATION_SEED, attention_options
from tfcseg.training.run import TrainListener, training_precision
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import (
    CALIBRATED,
    LoadedModel,
    created_with,
    exact_dtype,
    load_model,
    open_model,
    save_model,
)
from tfcseg.weights.model_card import NAME_LIMIT, ModelCard, joined_origin

STATE, LABELS, TRAINING = "state.json", "labels", "training"
"""Names in the work folder."""

CROP_PX = 320
"""Side of a training sample, limited by the network's input size."""

BATCH = 4
CHECKPOINT_EVERY = 50
VALIDATION_SAMPLES = 16

EXCERPT, EXCERPTS = 48, 8
"""The curve is fitted on excerpts of at most this many frames, at least this many excerpts in all."""


Measured: TypeAlias = dict[str, Scores]
"""Scores by the names in `SETTINGS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptResult(ModelConditions):
    """The fitted curve, and scores on held-out frames. ``model`` is the one that was adapted."""

    output: str
    curve: tuple[float, ...]
    steps: int
    videos: int
    measured_on: str
    before: Measured
    with_curve: Measured
    after: Measured
    keeps_attention: bool
    """Whether the file has the trained sparse attention, which is kept if labels get closer to mode ``image``."""


def adapt(
    videos: Sequence[Path],
    model: str | Path,
    output: Path,
    options: AdaptOptions = AdaptOptions(),
    *,
    validate: Sequence[Path] = (),
    device: DeviceOptions = DeviceOptions(),
    overwrite: bool = False,
    listener: TrainListener = TrainListener(),
) -> AdaptResult:
    """Adapt TFC to ``model`` on ``videos`` and write the file ``output``.

    Scores are measured on the ends of the videos, which are not trained on, or on ``validate``. Intermediate results
    are kept in ``work_folder(output)``, from which the same call resumes. Raises KeyboardInterrupt after Ctrl-C or
    SIGTERM; failures raise a TfcsegError with one line.
    """
    teaching, measuring = split_videos(videos, validate)
    folder = work_folder(output)
    job = _Adaptation(folder, str(model), options, device, listener)
    with folder_lock(folder):
        job.begin([*videos, *validate], overwrite=overwrite)
        result = job.run(teaching, measuring, output)
    shutil.rmtree(folder)
    return result


def work_folder(output: Path) -> Path:
    """Folder for intermediate results."""
    return output.with_suffix(".adapt")


class _Adaptation:
    """The steps of an adaptation; their results are kept in ``state.json``, so that a later call resumes."""

    def __init__(
        self, folder: Path, model: str, options: AdaptOptions, device: DeviceOptions, listener: TrainListener
    ) -> None:
        self._folder, self._options, self._listener = folder, options, listener
        self._device = device
        self._model = open_model(model, device)
        """For inference: folded, on its device."""
        self._plain = load_model(model, device="cpu", precision="fp32", fold=False)
        """For training and saving."""
        self._start = {name: tensor.clone() for name, tensor in self._plain.network.update.state_dict().items()}
        self._dtype = exact_dtype(self._plain.network)
        self._size = options.size or self._model.card.preprocessing.size
        self._state: dict[str, Any] = {}

    def begin(self, videos: Sequence[Path], *, overwrite: bool) -> None:
        """Resume from the work folder, or begin; UsageError if its results are of another call."""
        request = {
            "model": self._model.sha256,
            "precision": str(self._model.precision),
            "videos": [[str(video.resolve()), fingerprint(video)] for video in videos],
            **asdict(replace(self._options, size=self._size)),
        }
        path = self._folder / STATE
        if path.exists():
            self._state = read_json_object(path)
            if self._state.get("request") == request:
                return
            if not overwrite:
                raise UsageError(
                    f"{self._folder} holds an unfinished adaptation of other videos, options, precision or another "
                    "model; use --overwrite to start again"
                )
            for name in (LABELS, TRAINING):
                shutil.rmtree(self._folder / name, ignore_errors=True)
        self._state = {"request": request}
        self._keep()

    def run(self, teaching: Sequence[Part], measuring: Sequence[Part], output: Path) -> AdaptResult:
        """Run all unfinished steps."""
        held = hold_back(self._model, measuring, self._size)
        before = self._once("before", lambda: self._measured(self._model, held))
        curve = tuple(self._once("curve", lambda: self._fit(teaching)))
        fitted = replace(self._model.card.config, evidence=curve)
        with_curve = self._once("with_curve", lambda: self._measured(_configured(self._model, fitted), held))
        config, after = fitted, with_curve
        steps = self._options.steps if fitted.defaults.threshold > 0 else 0
        if steps < self._options.steps:
            self._listener.on_note("the sparse attention is not trained: the model's threshold is 0, so it is off")
        if steps:
            attentive = replace(fitted, repairs=True)
            self._train(teaching, attentive)
            path = self._folder / TRAINING / "last.safetensors"
            trained = self._once("after", lambda: self._measured(open_model(path, self._device), held))
            if _is_better(with_curve[ONE_SIDE], trained[ONE_SIDE]):
                config, after = attentive, trained
        result = AdaptResult(
            **model_conditions(self._model),
            output=str(output),
            curve=curve,
            steps=steps,
            videos=len(teaching),
            measured_on=f"{count_of(sum(len(each.images) for each in held), 'frame')} of "
            f"{count_of(len(held), 'video')}, not trained on",
            before=before,
            with_curve=with_curve,
            after=after,
            keeps_attention=config is not fitted,
        )
        self._write(output, config, result)
        return result

    def _once(self, name: str, find: Callable[[], Any]) -> Any:
        """Result of ``find``, or of an earlier call."""
        if name not in self._state:
            self._state[name] = find()
            self._keep()
        return self._state[name]

    def _keep(self) -> None:
        with replace_atomically(self._folder / STATE) as partial:
            partial.write_text(json.dumps(self._state), encoding="utf-8")

    def _measured(self, model: LoadedModel, held: Sequence[HeldBack]) -> Measured:
        found: Measured = {}
        for done, (name, options) in enumerate(SETTINGS.items()):
            self._listener.on_progress("measuring", done, len(SETTINGS))
            found[name] = measure(model, held, self._size, **options)
        return found

    def _fit(self, teaching: Sequence[Part]) -> list[float]:
        each = -(-EXCERPTS // len(teaching))
        excerpts = [excerpt for part in teaching for excerpt in part.excerpts(each, EXCERPT)]
        on_progress = partial(self._listener.on_progress, "fitting the curve")
        return list(fit_evidence(self._model, excerpts, size=self._size, on_progress=on_progress))

    def _train(self, teaching: Sequence[Part], config: ModelConfig) -> None:
        """Train the sparse attention of the plain network; other weights are frozen."""
        teacher = IntervalNetwork(self._model, checked_options(self._model, mode="image", size=self._size))
        on_labelled = partial(self._listener.on_progress, "labelling")
        stills, clips = label_parts(teacher, teaching, self._folder / LABELS, on_labelled)
        network = self._plain.network
        network.config = config
        options = replace(
            attention_options(steps=self._options.steps, batch=BATCH),
            crop=min(CROP_PX, self._size // SIZE_MULTIPLE * SIZE_MULTIPLE),
            seed=self._options.seed,
        )
        sources: list[Source] = [
            PseudoClipSource(Weighted(stills), options.crop, KEYFRAME_INTERVAL),
            ClipSource(clips, options.crop, KEYFRAME_INTERVAL),
        ]
        precision = "auto" if self._device.precision == "fp16" else self._device.precision  # fp16 gradients underflow
        trainer = Trainer(
            network=network,
            card=replace(self._plain.card, config=config),
            options=options,
            train=SampleStream(sources, [0.5, 0.5], count=options.steps * BATCH, seed=options.seed),
            validation=SampleStream(sources, [0.5, 0.5], count=VALIDATION_SAMPLES, seed=VALIDATION_SEED),
            folder=self._folder / TRAINING,
            device=self._model.device,
            precision=training_precision(precision, self._model.device),
            workers=min(1, options.steps // 100),
            report=self._listener.on_record,
            on_step=partial(self._listener.on_progress, "training"),
            dtype=self._dtype,
        )
        trainer.run(validate_every=options.steps, checkpoint_every=CHECKPOINT_EVERY)
        network.load_state_dict(trainer.average.state_dict())

    def _write(self, output: Path, config: ModelConfig, result: AdaptResult) -> None:
        start = self._plain.card
        if not result.keeps_attention:
            self._plain.network.update.load_state_dict(self._start)
        self._plain.network.config = config
        taught = f"TFC adapted on {count_of(result.videos, 'video')} without labels"
        card = replace(
            start,
            name=one_line(output.stem, NAME_LIMIT),
            config=config,
            trained_on=joined_origin((start.trained_on, taught)),
            measured=_card_entries(start, result, self._size),
            created_with=created_with(),
            description=f"{start.name}, its evidence curve fitted"
            + (f" and its sparse attention trained for {result.steps} steps" if result.keeps_attention else ""),
        )
        save_model(output, self._plain.network, card, dtype=self._dtype)


def _configured(model: LoadedModel, config: ModelConfig) -> LoadedModel:
    """Change the configuration of ``model``, in place."""
    model.network.config = config
    return replace(model, card=replace(model.card, config=config))


def _is_better(without: Scores, trained: Scores) -> bool:
    """Whether training brings one-sided labels closer to those of mode ``image``."""
    old, new = without["agreement"], trained["agreement"]
    return old is None or (new is not None and new > old)


def _card_entries(start: ModelCard, result: AdaptResult, size: int) -> dict[str, float | str]:
    """Entries of the card: the network's own that still hold, and scores before and after."""
    kept = {name: start.measured[name] for name in CALIBRATED if name in start.measured}
    settings = f"short side {size} px, its own labels as targets"
    entries: dict[str, float | str] = {**kept, "data": result.measured_on, "settings": settings}
    for suffix, found in (("_before", result.before), ("", result.after)):
        for setting, scores in found.items():
            entries |= {f"{setting}_{name}{suffix}": value for name, value in scores.items() if value is not None}
    return entries

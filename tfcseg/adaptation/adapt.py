"""One adaptation, from videos to a weights file: label → curve → sparse attention → measure → write.

Nothing of the network itself changes: in mode ``image`` the new model gives the labels of the old one, bit for bit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from tfcseg.adaptation.measure import LOW, SETTINGS, HeldBack, Scores, hold_back, measure
from tfcseg.adaptation.options import AdaptOptions
from tfcseg.adaptation.own_labels import label_parts
from tfcseg.adaptation.parts import Part, split_videos
from tfcseg.errors import UsageError
from tfcseg.files import read_json_object, replace_atomically
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.options import checked_options
from tfcseg.model.config import ModelConfig
from tfcseg.model.options import KEYFRAME_INTERVAL, SIMILARITY_THRESHOLD, SIZE_MULTIPLE
from tfcseg.research.evidence_fit import fit_evidence
from tfcseg.runs.folder_lock import folder_lock
from tfcseg.training.datasets import ClipSource, PseudoClipSource, SampleStream, Source
from tfcseg.training.labelling import Clip, Still
from tfcseg.training.loop import Trainer, TrainOptions
from tfcseg.training.recipes import VALIDATION_SEED, count_of
from tfcseg.training.request import training_precision
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import (
    BF16_AGREEMENT,
    CALIBRATED,
    LoadedModel,
    ModelCard,
    created_with,
    load_model,
    save_model,
)
from tfcseg.weights.model_card import NAME_LIMIT, TEXT_LIMIT

STATE, LABELS, TRAINING = "state.json", "labels", "training"
"""In the folder of what is half done."""

CROP_PX = 320
"""Side of a training sample, or what fits into the network's input."""

BATCH = 4
CHECKPOINT_EVERY = 50
VALIDATION_SAMPLES = 16

EXCERPT, EXCERPTS = 48, 8
"""Frames that the curve is fitted on: of each video, and how many excerpts of all videos together at least."""

LEARNING_RATE, HEAD_RATE_SCALE = 5e-5, 20.0
"""The sparse attention learns at their product: all that it repairs is fixed, and it starts as the identity."""


@dataclass(frozen=True, slots=True)
class AdaptListener:
    """Who is told what happens on the way."""

    on_progress: Callable[[str, int, int | None], None] = lambda stage, done, total: None
    on_record: Callable[[dict[str, Any]], None] = lambda record: None
    """What the training's log gets."""


Measured: TypeAlias = dict[str, Scores]
"""By setting, as `SETTINGS` names them."""


@dataclass(frozen=True, slots=True)
class AdaptResult:
    """What was learned, and what that changed on frames that taught nothing."""

    output: str
    curve: tuple[float, ...]
    steps: int
    videos: int
    measured_on: str
    before: Measured
    with_curve: Measured
    after: Measured
    keeps_attention: bool
    """Whether the trained sparse attention is in the file: only if it brings labels closer to mode ``image``."""


def adapt(
    videos: Sequence[Path],
    model: str | Path,
    output: Path,
    options: AdaptOptions = AdaptOptions(),
    *,
    validate: Sequence[Path] = (),
    device: DeviceOptions = DeviceOptions(),
    overwrite: bool = False,
    listener: AdaptListener = AdaptListener(),
) -> AdaptResult:
    """Teach TFC to ``model`` on ``videos`` and write it to the file ``output``.

    Measured on the ends of the videos, which then teach nothing, or on all of ``validate``. What is half done lies in
    ``work_folder(output)``, and the same call goes on from there. KeyboardInterrupt after Ctrl-C or SIGTERM; failures
    raise a TfcsegError with one line.
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
    """Where an adaptation keeps what is half done."""
    return output.with_suffix(".adapt")


class _Adaptation:
    """The steps of one adaptation; what they found is kept in ``state.json`` for a later call."""

    def __init__(
        self, folder: Path, model: str, options: AdaptOptions, device: DeviceOptions, listener: AdaptListener
    ) -> None:
        self._folder, self._options, self._listener = folder, options, listener
        self._device = device
        self._model = load_model(model, device=device.device, precision=device.precision)
        """As it is used: folded, on its device."""
        self._plain = load_model(model, device="cpu", precision="fp32", fold=False)
        """As it is trained and written."""
        self._start = {name: tensor.clone() for name, tensor in self._plain.network.update.state_dict().items()}
        self._size = options.size or self._model.card.preprocessing.size
        self._state: dict[str, Any] = {}

    def begin(self, videos: Sequence[Path], *, overwrite: bool) -> None:
        """Go on with what lies in the folder, or begin; UsageError if that is of another call."""
        request = {
            "model": self._model.sha256,
            "videos": [[str(video.resolve()), video.stat().st_size] for video in videos],
            **asdict(replace(self._options, size=self._size)),
        }
        path = self._folder / STATE
        if path.exists():
            self._state = read_json_object(path)
            if self._state.get("request") == request:
                return
            if not overwrite:
                raise UsageError(
                    f"{self._folder} holds an unfinished adaptation of other videos, options or another model; "
                    "use --overwrite to begin anew"
                )
            for name in (LABELS, TRAINING):
                shutil.rmtree(self._folder / name, ignore_errors=True)
        self._state = {"request": request}
        self._keep()

    def run(self, teaching: Sequence[Part], measuring: Sequence[Part], output: Path) -> AdaptResult:
        """All steps, less those that were finished before."""
        network = IntervalNetwork(self._model, checked_options(self._model, mode="image", size=self._size))
        stills, clips = label_parts(network, teaching, self._folder / LABELS, self._told("labelling"))
        held = hold_back(self._model, measuring, self._size)
        before = self._once("before", lambda: self._measured(self._model, held))
        curve = tuple(self._once("curve", lambda: list(self._fit(teaching))))
        fitted = replace(self._model.card.config, evidence=curve)
        with_curve = self._once("with_curve", lambda: self._measured(_configured(self._model, fitted), held))
        config, after = fitted, with_curve
        if self._options.steps:
            attentive = _attentive(fitted)
            self._train(stills, clips, attentive)
            trained = self._once("after", lambda: self._measured(self._reloaded(attentive), held))
            # The threshold alone also changes what keyframes carry over: the comparison has it on both sides.
            without = replace(attentive, repairs=fitted.repairs)
            how = SETTINGS[LOW]
            plain = self._once("without", lambda: measure(_configured(self._model, without), held, self._size, **how))
            if _repairs_more(plain, trained[LOW]):
                config, after = attentive, trained
        result = AdaptResult(
            output=str(output),
            curve=curve,
            steps=self._options.steps,
            videos=len(teaching),
            measured_on=f"{count_of(sum(len(each.images) for each in held), 'frame')} of "
            f"{count_of(len(held), 'video')} that taught nothing",
            before=before,
            with_curve=with_curve,
            after=after,
            keeps_attention=config is not fitted,
        )
        self._write(output, config, result)
        return result

    def _told(self, stage: str) -> Callable[[int, int], None]:
        return lambda done, total: self._listener.on_progress(stage, done, total)

    def _once(self, name: str, find: Callable[[], Any]) -> Any:
        """What ``find`` finds, or found in an earlier call."""
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

    def _fit(self, teaching: Sequence[Part]) -> tuple[float, ...]:
        each = -(-EXCERPTS // len(teaching))
        excerpts = [excerpt for part in teaching for excerpt in part.excerpts(each, EXCERPT)]
        told = self._told("fitting the curve")
        fit = fit_evidence(
            self._model,
            excerpts,
            read=Part.frames,
            size=self._size,
            on_progress=lambda clip, done, total: told(done, len(excerpts)),
        )
        return fit.curve

    def _train(self, stills: Sequence[Still], clips: Sequence[Clip], config: ModelConfig) -> None:
        """Train the sparse attention of the plain network, whose other weights stay as they are."""
        network = self._plain.network
        network.config = config
        options = TrainOptions(
            "tfc",
            steps=self._options.steps,
            batch=BATCH,
            learning_rate=LEARNING_RATE,
            head_rate_scale=HEAD_RATE_SCALE,
            warmup_steps=min(50, self._options.steps // 10),
            bce_weight=0.0,  # it teaches what is compared, which is the network's and stays
            crop=min(CROP_PX, self._size // SIZE_MULTIPLE * SIZE_MULTIPLE),
            train_norms=False,
            averaging=0.99,
            seed=self._options.seed,
            frozen=("backbone.", "decode_head."),
            correlation="both",
        )
        sources: list[Source] = [
            PseudoClipSource(stills, options.crop, KEYFRAME_INTERVAL),
            ClipSource(clips, options.crop, KEYFRAME_INTERVAL),
        ]
        samples = SampleStream(sources, [0.5, 0.5], count=options.steps * BATCH, seed=options.seed)
        precision = "auto" if self._device.precision == "fp16" else self._device.precision  # gradients need its range
        validation = SampleStream(sources, [0.5, 0.5], count=VALIDATION_SAMPLES, seed=VALIDATION_SEED)
        trainer = Trainer(
            network=network,
            card=replace(self._plain.card, config=config),
            options=options,
            train=samples,
            validation=validation,
            folder=self._folder / TRAINING,
            device=self._model.device,
            precision=training_precision(precision, self._model.device),
            workers=min(1, options.steps // 100),
            report=self._listener.on_record,
            on_step=self._told("training"),
            dtype=self._dtype,
        )
        trainer.run(validate_every=options.steps, checkpoint_every=CHECKPOINT_EVERY)
        network.load_state_dict(trainer.average.weights)

    @property
    def _dtype(self) -> torch.dtype:
        """Of the file: half precision if the network's own weights lose nothing by it."""
        network = self._plain.network
        fixed = [p for name, p in network.named_parameters() if not name.startswith("update.")]
        return torch.float16 if all(torch.equal(p.half().float(), p) for p in fixed) else torch.float32

    def _reloaded(self, config: ModelConfig) -> LoadedModel:
        """The plain network as it will be used."""
        path = self._folder / "trained.safetensors"
        save_model(path, self._plain.network, replace(self._plain.card, config=config), dtype=self._dtype)
        return load_model(path, device=self._device.device, precision=self._device.precision)

    def _write(self, output: Path, config: ModelConfig, result: AdaptResult) -> None:
        start = self._plain.card
        if not result.keeps_attention:
            self._plain.network.update.load_state_dict(self._start)
        self._plain.network.config = config
        taught = f"TFC adapted on {count_of(result.videos, 'video')} without labels"
        card = replace(
            start,
            name=output.stem[:NAME_LIMIT],
            config=config,
            trained_on="; then ".join(filter(None, (start.trained_on, taught)))[-TEXT_LIMIT:],
            measured=_card_entries(start, result),
            created_with=created_with(),
            description=f"{start.name}, its evidence curve fitted"
            + (f" and its sparse attention trained for {result.steps} steps" if result.keeps_attention else ""),
        )
        save_model(output, self._plain.network, card, dtype=self._dtype)


def _configured(model: LoadedModel, config: ModelConfig) -> LoadedModel:
    """``model`` itself with another configuration of what is between keyframes."""
    model.network.config = config
    return replace(model, card=replace(model.card, config=config))


def _attentive(config: ModelConfig) -> ModelConfig:
    """With sparse attention, and a threshold at which it has something to repair."""
    threshold = config.defaults.threshold or SIMILARITY_THRESHOLD
    return replace(config, repairs=True, defaults=replace(config.defaults, threshold=threshold))


def _repairs_more(without: Scores, trained: Scores) -> bool:
    """Whether one-sided labels come closer to those of mode ``image``."""
    old, new = without["agreement"], trained["agreement"]
    return old is None or (new is not None and new > old)


def _card_entries(start: ModelCard, result: AdaptResult) -> dict[str, float | str]:
    """What holds of the network still, and what was measured before and after."""
    kept = {name: start.measured[name] for name in (*CALIBRATED, BF16_AGREEMENT) if name in start.measured}
    entries: dict[str, float | str] = {**kept, "data": result.measured_on, "settings": "its own labels as targets"}
    for suffix, found in (("_before", result.before), ("", result.after)):
        for setting, scores in found.items():
            entries |= {f"{setting}_{name}{suffix}": value for name, value in scores.items() if value is not None}
    return entries

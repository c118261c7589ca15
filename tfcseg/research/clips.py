"""Measure the stability of labels on unlabelled clips, in several modes of a model.

Flow consistency and label change need no ground truth. For VC, the teachers' labels, averaged over time, take its
place: predictions should be constant where these are. Agreement with them is measured, too.

Shapes: T frames, H W their size.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from tfcseg.inference.options import check_variants, variant_options
from tfcseg.inference.segment import segment_with
from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.media.frames import Image
from tfcseg.media.reader import open_frames
from tfcseg.media.source import Given, Source, absolute
from tfcseg.metrics.consistency import ConsistencyMeter, StabilityScores
from tfcseg.metrics.scores import Mean, VideoConsistency, percent
from tfcseg.model.options import InferenceOptions
from tfcseg.options import OnProgress
from tfcseg.report.schema import OptionFacts
from tfcseg.research.networks import ClipTargets, HeldOutConditions, Judges, made_by, refuse_doubles
from tfcseg.runs.summary import option_facts
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import LoadedModel, open_model

Numbers: TypeAlias = dict[str, "float | None"]  # scores of a clip, in percent


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """The measured part of a clip; ``sure`` is the percentage of positions with a target."""

    name: str
    frames: int
    frame_rate: float
    size: tuple[int, int]
    sure: float | None


@dataclass(frozen=True, slots=True)
class ModelScores:
    """A model's ``clips[clip][mode]``, and means over clips by mode."""

    name: str
    options: Mapping[str, OptionFacts]
    clips: Mapping[str, Mapping[str, Numbers]]
    mean: Mapping[str, Numbers]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipsResult(HeldOutConditions):
    """Content of the JSON file."""

    kind: str = "clips"
    modes: tuple[str, ...]
    teachers: tuple[str, ...]
    target_classes: int | None
    first_s: float
    max_frames: int
    optical_flow: str | None
    clips: tuple[ClipFacts, ...]
    results: tuple[ModelScores, ...]


def compare_clips(
    sources: Sequence[str | Path],
    models: Sequence[str | Path] = ("default",),
    teachers: Sequence[str | Path] = (),
    *,
    modes: Sequence[str] = ("image", "tfc"),
    inference: InferenceOptions | None = None,
    first_s: float = 8.0,
    max_frames: int = 120,
    device: DeviceOptions = DeviceOptions(),
    on_progress: OnProgress = lambda stage, done, total: None,
) -> ClipsResult:
    """Run ``models`` in ``modes`` on the beginnings of videos or folders of frames; VC needs teachers.

    modes: some of ``MODE_VARIANTS``. first_s, max_frames: length of the measured part, which is kept in memory.
    Failures raise a TfcsegError with one line.
    """
    check_variants(modes, inference)
    names = [clip_name(source) for source in sources]
    refuse_doubles(names, "clips")
    loaded = [open_model(model, device) for model in models]
    refuse_doubles([model.card.name for model in loaded], "models")
    options = [{mode: variant_options(model, mode, inference) for mode in modes} for model in loaded]
    judges = Judges(teachers) if teachers else None
    clips: list[ClipFacts] = []
    scores: list[dict[str, dict[str, Numbers]]] = [{} for _ in loaded]
    on_progress("clips", 0, len(names))
    for name, source in zip(names, sources, strict=True):
        with open_frames(source, end_s=first_s) as found:
            images = [frame.image for frame in itertools.islice(found, max_frames)]
        targets = None if judges is None else judges.label(images)
        for model, chosen, own in zip(loaded, options, scores, strict=True):
            own[name] = {mode: _measure(model, used, images, targets) for mode, used in chosen.items()}
        sure = None if targets is None else 100 * targets.sure
        size = (images[0].shape[0], images[0].shape[1])
        clips.append(ClipFacts(name, len(images), float(found.info.frame_rate), size, sure))
        on_progress("clips", len(clips), len(names))
    results = [
        ModelScores(
            name=model.card.name,
            options={mode: option_facts(model, used) for mode, used in chosen.items()},
            clips=own,
            mean={mode: _means([numbers[mode] for numbers in own.values()]) for mode in modes},
        )
        for model, chosen, own in zip(loaded, options, scores, strict=True)
    ]
    return ClipsResult(
        modes=tuple(modes),
        teachers=() if judges is None else judges.names,
        target_classes=None if judges is None else len(judges.labels),
        first_s=first_s,
        max_frames=max_frames,
        optical_flow=ConsistencyMeter().flow_name,
        clips=tuple(clips),
        results=tuple(results),
        **made_by(loaded),
    )


def clip_name(source: Given) -> str:
    """Name of a clip in results: the stem of its file, or for a folder ``images`` the name of the one above."""
    found = Source.of(source)
    return absolute(found.given).parent.name if found.kind == "folder" and found.title == "images" else found.title


def _measure(
    model: LoadedModel, options: InferenceOptions, images: Sequence[Image], targets: ClipTargets | None
) -> Numbers:
    """Measure all scores of a clip with ``options``; None for scores that cannot be computed."""
    stability, consistency = StabilityScores(), VideoConsistency()
    agreement: list[float] = []
    size = (images[0].shape[0], images[0].shape[1])
    at_size = iter(()) if targets is None else targets.at(size)
    # Classes of the targets as the model's indices; agreement ignores classes that the model lacks.
    own = np.full(256, NO_CLASS, np.uint8)
    for index, name in enumerate(() if targets is None else targets.labels.names):
        if name in model.labels.names:
            own[index] = model.labels.index(name)
    for frame in segment_with(images, model, options):
        stability.update(frame.image, frame.labels)
        target = next(at_size, None)
        if target is not None:
            consistency.update(target, frame.labels)
            expected = cv2.LUT(target, own)
            asked = int(np.count_nonzero(expected != NO_CLASS))
            if asked:
                agreement.append(int(np.count_nonzero(expected == frame.labels)) / asked)
    if targets is None:
        return stability.percentages()
    found: Numbers = {f"vc{n}": percent(scores.vc.value) for n, scores in consistency.result().items()}
    return stability.percentages() | found | {"agreement": percent(Mean.of(agreement).value)}


def _means(clips: Sequence[Numbers]) -> Numbers:
    """Mean of each score over the clips that have it."""
    found: Numbers = {}
    for key in clips[0]:
        values = [value for numbers in clips if (value := numbers[key]) is not None]
        found[key] = Mean.of(values).value if values else None
    return found

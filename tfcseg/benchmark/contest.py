"""Model, clip, contenders and options of a benchmark, and the conditions that its result states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from tfcseg.benchmark.clips import SYNTHETIC, Clip, make_clip, read_clip
from tfcseg.benchmark.plain import REFERENCE_VARIANT, PlainSegformer, build_plain, has_transformers
from tfcseg.benchmark.random_model import write_random_model
from tfcseg.benchmark.request import Request
from tfcseg.errors import UsageError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.network_input import network_size
from tfcseg.inference.options import checked_options, in_mode
from tfcseg.inference.segment import segment_with
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.media.frames import Image
from tfcseg.model.options import InferenceOptions
from tfcseg.report.schema import model_conditions
from tfcseg.weights.loading import LoadedModel, load_model, resolve_device, resolve_precision

PLAIN, IMAGE, TFC = "plain", "image", "tfc"
"""Contenders: SegFormer of ``transformers`` frame by frame; tfcseg frame by frame; tfcseg with TFC."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Data shared by all parts of a benchmark."""

    request: Request
    folder: Path
    """Temporary; removed when the benchmark ends."""
    clip: Clip
    weights: str | Path
    """Name or file, for `load_model`."""
    model: LoadedModel
    options: InferenceOptions
    plain_precision: torch.dtype

    def in_mode(self, mode: str) -> InferenceOptions:
        """Options of one of our contenders; its name is the mode."""
        return in_mode(self.model, self.options, mode)

    def segment(self, mode: str, images: Sequence[Image]) -> list[SegmentedFrame]:
        """Run one of our contenders on decoded frames."""
        return list(segment_with(images, self.model, self.in_mode(mode)))

    def workers(self, mode: str) -> int:
        """Number of intervals that one of our contenders computes at the same time."""
        return IntervalNetwork(self.model, self.in_mode(mode)).workers


@contextmanager
def open_contest(request: Request) -> Iterator[Contest]:
    """Load the model or make random weights, read or make the clip; temporary files are removed at the end.

    Raises UsageError, InputError or WeightsError if that fails.
    """
    request.check()
    device = resolve_device(request.device.device)
    resolve_precision(request.device.precision, device)
    plain_precision = resolve_precision(request.plain_precision, device)
    with TemporaryDirectory(prefix="tfcseg-bench-") as name:
        folder = Path(name)
        clip = _open_clip(request, folder)
        weights: str | Path = request.model
        if request.backbone is not None:
            file = folder / f"random-{request.backbone}.safetensors"
            weights = write_random_model(file, request.backbone, request.classes, clip.images[:1])
        model = load_model(weights, device=request.device.device, precision=request.device.precision)
        options = checked_options(model, request.inference)
        contest = Contest(
            request=request,
            folder=folder,
            clip=clip,
            weights=weights,
            model=model,
            options=options,
            plain_precision=plain_precision,
        )
        if request.updated_fraction is not None:
            contest = replace(contest, options=_with_threshold(contest, request.updated_fraction))
        yield contest


def contenders(contest: Contest) -> tuple[str, ...]:
    """Names of the available contenders."""
    ours = (IMAGE, TFC) if contest.options.uses_memory else (IMAGE,)
    return (PLAIN, *ours) if has_transformers() else ours


def open_plain(contest: Contest) -> PlainSegformer:
    """Build plain SegFormer with the contest's weights, on its device."""
    unfolded = load_model(contest.weights, device="cpu", precision="fp32", fold=False)
    return build_plain(unfolded, contest.options.size, contest.model.device, contest.plain_precision)


def _open_clip(request: Request, folder: Path) -> Clip:
    if request.video is not None:
        return read_clip(request.video, request.frames)
    path = make_clip(folder / f"{SYNTHETIC}.mp4", request.synthetic_size, max(request.frames, request.clip_frames))
    return read_clip(path, request.frames, name=SYNTHETIC)


def _with_threshold(contest: Contest, fraction: float) -> InferenceOptions:
    """Set the threshold above ``fraction`` of the clip's similarities."""
    frames = contest.segment("reuse", contest.clip.images)
    maps = [frame.similarity.ravel() for frame in frames if frame.similarity is not None]
    if not maps:
        raise UsageError("no frame lies between keyframes, so no threshold can be chosen; give a longer clip")
    limit = float(np.quantile(np.concatenate(maps), fraction))
    return replace(contest.options, threshold=min(1.0, max(0.0, limit)))


def contest_facts(contest: Contest) -> dict[str, Any]:
    """Keyword arguments for both `Benchmark` and `Scaling`."""
    request = contest.request
    facts = model_conditions(contest.model)
    if has_transformers():
        facts["versions"] = {**facts["versions"], "transformers": version("transformers")}
    options = {name: value for name, value in asdict(contest.options).items() if name != "mode"}
    options["workers"] = contest.workers(contest.options.mode)
    return {
        **facts,
        "random_weights": request.backbone is not None,
        "embed_dim": contest.model.card.config.embed_dim,
        "input": {"name": contest.clip.name, "frame_rate": str(contest.clip.frame_rate)},
        "resolution": {"source": contest.clip.size, "network": network_size(contest.clip.size, contest.options.size)},
        "options": {**options, "updated_fraction": request.updated_fraction},
        "plain": _plain_facts(contest),
        "rounds": request.rounds,
    }


def _plain_facts(contest: Contest) -> dict[str, Any]:
    """Facts about plain SegFormer, which has our weights, or random ones if our model is no SegFormer."""
    if not has_transformers():
        return {"is_measured": False}
    backbone = contest.model.card.config.backbone
    has_same_weights = backbone.startswith("mit_")
    variant = backbone.removeprefix("mit_") if has_same_weights else REFERENCE_VARIANT
    return {
        "is_measured": True,
        "network": f"SegFormer-{variant.upper()}",
        "weights": "the same" if has_same_weights else "random, with as many classes",
        "precision": str(contest.plain_precision).removeprefix("torch."),
        "process": "the same as ours, which keeps freed memory",
        "end_to_end": "one frame after the other; overlay and masks by the same writers, no report, no stability",
    }

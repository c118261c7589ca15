"""Model, clip, contenders and options of a benchmark, and the conditions that its result states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tfcseg.benchmark.plain import REFERENCE_VARIANT, PlainSegformer, build_plain, has_transformers
from tfcseg.benchmark.random_model import write_random_model
from tfcseg.benchmark.request import Request
from tfcseg.errors import InputError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.network_input import network_size
from tfcseg.inference.options import checked_options, in_mode
from tfcseg.media.frames import Image
from tfcseg.media.reader import open_frames
from tfcseg.model.options import InferenceOptions
from tfcseg.report.schema import model_conditions
from tfcseg.weights.loading import LoadedModel, load_model

PLAIN, IMAGE, TFC = "plain", "image", "tfc"
"""Contenders: SegFormer of ``transformers`` frame by frame; tfcseg frame by frame; tfcseg with TFC."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Data shared by all parts of a benchmark."""

    request: Request
    folder: Path
    """Temporary; removed when the benchmark ends."""
    images: tuple[Image, ...]
    """The first frames of the video, decoded, to measure the network alone."""
    first_time_s: float
    frame_rate: Fraction
    weights: str | Path
    """Name or file, for `load_model`."""
    model: LoadedModel
    options: InferenceOptions

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the video."""
        height, width = self.images[0].shape[:2]
        return height, width

    def in_mode(self, mode: str) -> InferenceOptions:
        """Options of one of our contenders; its name is the mode."""
        return in_mode(self.model, self.options, mode)

    def end_s(self, contender: str) -> float:
        """End of the part for whole runs; plain SegFormer gets fewer frames, which all cost the same."""
        frames = self.request.clip_frames
        if contender == PLAIN:
            frames = min(self.request.plain_frames, frames)
        return self.first_time_s + (frames - 0.5) / float(self.frame_rate)  # half a frame before the next one


@contextmanager
def open_contest(request: Request) -> Iterator[Contest]:
    """Load the model or make random weights, and read the clip; temporary files are removed at the end.

    Raises UsageError, InputError or WeightsError if that fails.
    """
    request.check()
    with TemporaryDirectory(prefix="tfcseg-bench-") as name:
        folder = Path(name)
        with open_frames(request.video) as source:
            frames = list(islice(source, request.frames))
        images = tuple(frame.image for frame in frames)
        if len({image.shape for image in images}) > 1:
            raise InputError(f"{request.video}: the size of its frames changes; choose another clip")
        weights: str | Path = request.model
        if request.backbone is not None:
            file = folder / f"random-{request.backbone}.safetensors"
            weights = write_random_model(file, request.backbone, request.classes, images[:1])
        model = load_model(weights, device=request.device.device, precision=request.device.precision)
        yield Contest(
            request=request,
            folder=folder,
            images=images,
            first_time_s=frames[0].time_s,
            frame_rate=source.info.frame_rate,
            weights=weights,
            model=model,
            options=checked_options(model, request.inference),
        )


def contenders(contest: Contest) -> tuple[str, ...]:
    """Names of the available contenders."""
    ours = (IMAGE, TFC) if contest.options.uses_memory else (IMAGE,)
    return (PLAIN, *ours) if has_transformers() else ours


def open_plain(contest: Contest) -> PlainSegformer:
    """Build plain SegFormer with the contest's weights, on its device."""
    unfolded = load_model(contest.weights, device="cpu", precision="fp32", fold=False)
    return build_plain(unfolded, contest.options.size, contest.model.device, contest.model.precision)


def contest_facts(contest: Contest) -> dict[str, Any]:
    """Fields of `Benchmark` that say what was measured, and where."""
    request = contest.request
    facts = model_conditions(contest.model)
    if has_transformers():
        facts["versions"] = {**facts["versions"], "transformers": version("transformers")}
    options = {name: value for name, value in asdict(contest.options).items() if name != "mode"}
    options["workers"] = IntervalNetwork(contest.model, contest.options).workers
    return {
        **facts,
        "random_weights": request.backbone is not None,
        "embed_dim": contest.model.card.config.embed_dim,
        "input": {"name": request.video.name, "frame_rate": str(contest.frame_rate)},
        "resolution": {"source": contest.size, "network": network_size(contest.size, contest.options.size)},
        "options": options,
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
        "precision": str(contest.model.precision).removeprefix("torch."),
        "process": "the same as ours, which keeps freed memory",
        "end_to_end": "one frame after the other; overlay and masks by the same writers, no report, no stability",
    }

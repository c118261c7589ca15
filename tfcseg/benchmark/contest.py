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

    @property
    def contenders(self) -> tuple[str, ...]:
        """Names of the available contenders."""
        ours = (IMAGE, TFC) if self.options.uses_memory else (IMAGE,)
        return (PLAIN, *ours) if has_transformers() else ours

    def options_of(self, contender: str) -> InferenceOptions:
        """Options of a contender; the names of ours are modes."""
        return self.options if contender == PLAIN else in_mode(self.model, self.options, contender)

    def open_plain(self) -> PlainSegformer:
        """Build plain SegFormer with the contest's weights, on its device."""
        unfolded = load_model(self.weights, device="cpu", precision="fp32", fold=False)
        return build_plain(unfolded, self.options.size, self.model.device, self.model.precision)

    def end_s(self, contender: str) -> float:
        """End of the part for whole runs; plain SegFormer gets fewer frames, which all cost the same."""
        frames = self.request.clip_frames
        if contender == PLAIN:
            frames = min(self.request.plain_frames, frames)
        return self.first_time_s + (frames - 0.5) / float(self.frame_rate)  # half a frame before the next one

    def facts(self) -> dict[str, Any]:
        """Fields of `Benchmark` that say what was measured, and where."""
        facts = model_conditions(self.model)
        plain: dict[str, Any] = {"is_measured": has_transformers()}
        if has_transformers():
            facts["versions"] = {**facts["versions"], "transformers": version("transformers")}
            backbone = self.model.card.config.backbone
            is_segformer = backbone.startswith("mit_")
            variant = backbone.removeprefix("mit_") if is_segformer else REFERENCE_VARIANT
            plain["network"] = f"SegFormer-{variant.upper()}"
            plain["weights"] = "the same" if is_segformer else "random, with as many classes"
            plain["precision"] = facts["precision"]
        options = {name: value for name, value in asdict(self.options).items() if name != "mode"}
        options["workers"] = IntervalNetwork(self.model, self.options).workers
        return {
            **facts,
            "random_weights": self.request.backbone is not None,
            "embed_dim": self.model.card.config.embed_dim,
            "input": {"name": self.request.video.name, "frame_rate": str(self.frame_rate)},
            "resolution": {"source": self.size, "network": network_size(self.size, self.options.size)},
            "options": options,
            "plain": plain,
            "rounds": self.request.rounds,
        }


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

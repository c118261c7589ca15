"""Options of inference, defined only here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from tfcseg.options import THE_MODELS, Option, declared

KEYFRAME_INTERVAL = 4  # every 4th frame is a keyframe, in training and inference (paper, "Implementation details")
SIMILARITY_THRESHOLD = 0.8  # points with a lower similarity are updated by sparse MSDA (eq. 11)
SIZE_MULTIPLE = 32  # sides of network inputs are multiples of this, the deepest stride

MODES = ("tfc", "reuse", "image")
"""``image``: every frame is a keyframe. ``reuse``: eq. 4 alone. ``tfc``: eqs 4 to 11, or with keyframes weighed."""

CORRELATIONS = ("paper", "aligned")
"""``paper``: eq. 6 compares the same position. ``aligned``: the position's best match nearby (model/alignment.py)."""

MODE_VARIANTS = (
    "image",
    *(f"{mode}{suffix}" for mode in ("reuse", "tfc") for suffix in ("-paper", "-aligned", "")),
)
"""Modes alone and with a fixed correlation, from the simplest to the full method."""

SIDES = ("one", "past", "both")
"""Keyframes that frames refer to. ``one``: that of their interval (the paper). ``past`` and ``both`` (ours): those
before them, or before and after them, weighed by evidence (model/evidence.py), in mode ``tfc``."""

LONGEST = 4  # maximum distance of adaptive keyframes, in intervals


@dataclass(frozen=True, slots=True)
class InferenceOptions:
    """How frames go through a network. Fields that are None take the model's value (`completed_by`)."""

    mode: Annotated[
        str,
        Option(
            "tfc: the method. image: every frame on its own. reuse: keyframe features reused unchanged.", choices=MODES
        ),
    ] = "tfc"
    keyframe_interval: Annotated[
        int, Option("Frames from one keyframe to the next.", low=1, high=1000, value_of_paper=KEYFRAME_INTERVAL)
    ] = THE_MODELS
    threshold: Annotated[
        float,
        Option(
            "Update points whose similarity to the keyframe is below this.",
            low=0,
            high=1,
            value_of_paper=SIMILARITY_THRESHOLD,
        ),
    ] = THE_MODELS
    size: Annotated[int, Option("Short side of the network's input, in pixels.", low=SIZE_MULTIPLE, high=4096)] = (
        THE_MODELS
    )
    correlation: Annotated[
        str,
        Option(
            "Compare with the keyframe at the same position (paper) or at the best match nearby (aligned).",
            choices=CORRELATIONS,
            value_of_paper="paper",
        ),
    ] = THE_MODELS
    sides: Annotated[
        str,
        Option(
            "Compare frames with the keyframe of their interval (one, the paper), or weigh those before (past) or "
            "before and after (both: steadier and faster).",
            choices=SIDES,
            value_of_paper="one",
        ),
    ] = THE_MODELS
    """``threshold`` and ``correlation`` only have an effect with ``one``."""
    keyframes: Annotated[
        str,
        Option(
            "Place keyframes at a fixed interval, or where the scene has changed, at most four intervals apart "
            "(adaptive; needs --sides past or both).",
            choices=("fixed", "adaptive"),
            value_of_paper="fixed",
        ),
    ] = THE_MODELS
    keyframe_scale: Annotated[
        float,
        Option(
            "See keyframes 1 to 2 times as large as --size says (with --sides past or both, or every frame in mode "
            "image): finds more small things, but is slower.",
            low=1,
            high=2,
            value_of_paper=1.0,
        ),
    ] = THE_MODELS
    half_size_share: Annotated[
        float,
        Option(
            "What the network at half the size decides about large areas: 0 (nothing, the paper) to 1. Finds large "
            "things in close-ups, for at most a quarter more time per keyframe.",
            low=0,
            high=1,
            value_of_paper=0.0,
        ),
    ] = THE_MODELS
    things_share: Annotated[
        float,
        Option(
            "How much the model's second network raises or lowers logits of animals, vehicles and furniture, and "
            "lowers those of people and cars there: 0 (not at all, the paper) to 1. For models that have one.",
            low=0,
            high=1,
            value_of_paper=0.0,
        ),
    ] = THE_MODELS
    latency: Annotated[
        str,
        Option("low: label each frame before reading the next one, for live input.", choices=("normal", "low")),
    ] = "normal"
    """``low`` takes ``past`` for ``both``, if that is the model's choice."""

    def completed_by(self, defaults: InferenceOptions) -> InferenceOptions:
        """Fill fields that are None from ``defaults``."""
        missing = [field.name for field in declared(InferenceOptions) if getattr(self, field.name) is None]
        return replace(self, **{name: getattr(defaults, name) for name in missing})

    @property
    def keyframe_size(self) -> int:
        """Short side of a keyframe as the network sees it, in px."""
        return round(self.size * self.keyframe_scale)

    @property
    def uses_half_size(self) -> bool:
        """Whether keyframes are also seen at half the size."""
        return self.half_size_share > 0 or self.things_share > 0

    @property
    def longest_interval(self) -> int:
        """Maximum number of frames from one keyframe to the next."""
        return self.keyframe_interval * (LONGEST if self.keyframes == "adaptive" else 1)

    @property
    def uses_memory(self) -> bool:
        """Whether there are frames between keyframes."""
        return self.mode != "image" and self.keyframe_interval > 1


MODEL_FIELDS = tuple(field for field in declared(InferenceOptions) if field.is_the_models)
"""Options that a model's card sets. The input size is one, too, but belongs to the preprocessing."""

PAPER_OPTIONS = InferenceOptions(**{field.name: field.option.value_of_paper for field in MODEL_FIELDS})
"""The paper's values, for models that set nothing else."""


def keyframe_distance(options: Mapping[str, Any]) -> str:
    """From one keyframe to the next, by the options in a result: ``4``, or ``adaptive``."""
    return "adaptive" if options.get("keyframes") == "adaptive" else str(options["keyframe_interval"])

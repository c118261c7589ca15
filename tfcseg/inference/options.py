"""How frames go through a network: the options, checked against the model that they are for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfcseg.errors import UsageError
from tfcseg.model.config import (
    CORRELATIONS,
    KEYFRAME_POSITIONS,
    KEYFRAMES,
    LATENCIES,
    LONGEST_INTERVAL,
    MODE_VARIANTS,
    MODES,
    SIDES,
    SIZE_MULTIPLE,
)
from tfcseg.spelling import hint
from tfcseg.weights.loading import LoadedModel


@dataclass(frozen=True, slots=True)
class InferenceOptions:
    """How frames go through the network; ``checked_options`` fills in the model's defaults."""

    mode: str
    keyframe_interval: int
    threshold: float
    size: int
    """Short side of the network's input in px."""
    correlation: str
    """``paper`` or ``aligned``."""
    keyframe_position: str
    """``first`` or ``middle`` of the interval."""
    keyframe_carry: float = 0.0
    """How much keyframes take over from the one before, 0 to 1; 0 in modes without interpolation."""
    latency: str = "normal"
    """``normal`` or ``low``."""
    sides: str = "one"
    """``one`` or ``both``."""
    keyframes: str = "fixed"
    """``fixed`` or ``adaptive``; then ``keyframe_interval`` is the longest."""
    compile: bool = False
    """Whether `IntervalNetwork.compile` is to be called before the first frame."""

    def keyframe_of(self, frames: int) -> int:
        """Index of the keyframe among the ``frames`` of an interval (the last one of a video may be shorter)."""
        middle = self.keyframe_interval // 2 if self.keyframe_position == "middle" else 0
        return min(middle, frames - 1)

    @property
    def carries(self) -> bool:
        """Whether keyframes take anything over from the one before."""
        return self.uses_memory and (self.keyframe_carry > 0 or self.sides == "both")

    @property
    def uses_memory(self) -> bool:
        """Whether there are frames between keyframes at all."""
        return self.mode != "image" and self.keyframe_interval > 1


def checked_options(
    model: LoadedModel,
    *,
    mode: str = "tfc",
    keyframe_interval: int | None = None,
    threshold: float | None = None,
    size: int | None = None,
    correlation: str | None = None,
    keyframe_position: str | None = None,
    keyframe_carry: float | None = None,
    latency: str = "normal",
    sides: str | None = None,
    keyframes: str | None = None,
    compile: bool = False,
) -> InferenceOptions:
    """Options with the model's defaults for what is None; UsageError for values that make no sense.

    Low latency needs the keyframe first, which is then the default. Both sides are the default where there can be
    two, and keyframes then adaptive unless an interval is given.
    """
    config = model.card.config
    can_be_both = mode in ("tfc", "blend") and latency == "normal"
    chosen_sides = ("both" if can_be_both else "one") if sides is None else sides
    is_adaptive = chosen_sides == "both" and keyframe_interval is None
    choice = ("adaptive" if is_adaptive else "fixed") if keyframes is None else keyframes
    longest = LONGEST_INTERVAL if choice == "adaptive" else config.keyframe_interval
    interval = longest if keyframe_interval is None else keyframe_interval
    limit = config.threshold if threshold is None else threshold
    carry = config.keyframe_carry if keyframe_carry is None else keyframe_carry
    side = model.card.preprocessing.size if size is None else size
    if mode not in MODES:
        raise UsageError(f"no mode {mode!r}; there are {', '.join(MODES)}")
    matching = config.correlation if correlation is None else correlation
    if matching not in CORRELATIONS:
        raise UsageError(f"no correlation {matching!r}; there are {', '.join(CORRELATIONS)}")
    if latency not in LATENCIES:
        raise UsageError(f"no latency {latency!r}; there are {', '.join(LATENCIES)}")
    preferred = "first" if latency == "low" else config.keyframe_position
    position = preferred if keyframe_position is None else keyframe_position
    if position not in KEYFRAME_POSITIONS:
        raise UsageError(f"no keyframe position {position!r}; there are {', '.join(KEYFRAME_POSITIONS)}")
    if latency == "low" and position != "first":
        raise UsageError(f"low latency cannot wait for a keyframe in the {position} of its interval; use first")
    _check_sides(mode, latency, chosen_sides, choice)
    if not 1 <= interval <= 1000:
        raise UsageError(f"a keyframe interval of {interval} is not between 1 and 1000")
    if not 0.0 <= limit <= 1.0:
        raise UsageError(f"a threshold of {limit:g} is not between 0 and 1")
    if not 0.0 <= carry <= 1.0:
        raise UsageError(f"a keyframe carry of {carry:g} is not between 0 and 1")
    if not SIZE_MULTIPLE <= side <= 4096:
        raise UsageError(f"a network input of {side} px is not between {SIZE_MULTIPLE} and 4096")
    return InferenceOptions(
        mode,
        1 if mode == "image" else interval,
        limit,
        side,
        matching,
        position,
        carry if mode in ("tfc", "blend") else 0.0,
        latency,
        chosen_sides if mode != "image" and interval > 1 else "one",
        choice,
        compile,
    )


def _check_sides(mode: str, latency: str, sides: str, keyframes: str) -> None:
    if sides not in SIDES:
        raise UsageError(f"no sides {sides!r}; there are {', '.join(SIDES)}")
    if keyframes not in KEYFRAMES:
        raise UsageError(f"no keyframes {keyframes!r}; there are {', '.join(KEYFRAMES)}")
    if sides == "both" and latency == "low":
        raise UsageError("low latency cannot wait for a keyframe after a frame; use sides one")
    if sides == "both" and mode not in ("tfc", "blend"):
        raise UsageError(f"mode {mode} has one side; use tfc or blend")
    if sides == "one" and keyframes == "adaptive":
        raise UsageError("adaptive keyframes need both sides: leave sides one out, or take fixed keyframes")


def variant_options(
    model: LoadedModel, variant: str, *, correlation: str | None = None, **given: Any
) -> InferenceOptions:
    """Options of one of ``MODE_VARIANTS``: a mode, whose name may end in a correlation.

    ``correlation`` is for names that have none; everything else is `checked_options`'.
    """
    mode, _, own = variant.partition("-")
    return checked_options(model, mode=mode, correlation=own or correlation, **given)


def check_variants(variants: Sequence[str]) -> None:
    """UsageError unless ``variants`` names some of ``MODE_VARIANTS``, each once."""
    unknown = [variant for variant in variants if variant not in MODE_VARIANTS]
    if unknown:
        raise UsageError(f"no mode {unknown[0]!r}; {hint(unknown[0], MODE_VARIANTS)}")
    if not variants:
        raise UsageError(f"no mode is given; there are {', '.join(MODE_VARIANTS)}")
    if len(set(variants)) < len(variants):
        raise UsageError(f"a mode is named twice: {','.join(variants)}")

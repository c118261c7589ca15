"""Complete and check options for one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tfcseg.errors import UsageError
from tfcseg.model.options import InferenceOptions
from tfcseg.options import THE_MODELS, check

if TYPE_CHECKING:
    from tfcseg.weights.loading import Known, LoadedModel


def checked_options(model: Known, options: InferenceOptions | None = None, **given: Any) -> InferenceOptions:
    """Return ``options`` with the ``given`` fields replaced, completed with the model's defaults.

    Raises UsageError for values that make no sense. Low latency cannot wait for later keyframes, which changes the
    defaults; modes other than ``tfc`` need one side.
    """
    wanted = replace(options or InferenceOptions(), **given)
    check(wanted)
    complete = _completed(model, _sided(model, wanted))
    _refuse_without_effect(complete, _completed(model, InferenceOptions()))
    if complete.things_share and not model.card.config.things:
        raise UsageError(f"{model.card.name} has no second network for things; leave out --things-share")
    return replace(complete, keyframe_interval=1) if complete.mode == "image" else complete


def _completed(model: Known, options: InferenceOptions) -> InferenceOptions:
    return options.completed_by(replace(model.card.config.defaults, size=model.card.preprocessing.size))


WEIGHED = "tfc"  # the mode that can weigh several keyframes
_WEIGHED = f"--sides past or both, in mode {WEIGHED}"

ONE_SIDED = ("threshold", "correlation")
"""Options that only have an effect with one side: unless sides are given, they select it."""


def _sided(model: Known, wanted: InferenceOptions) -> InferenceOptions:
    """Return ``wanted`` with one side, or only the past, where sides are not given and more is impossible or not
    requested."""
    is_for_one = wanted.sides is None and any(getattr(wanted, name) is not None for name in ONE_SIDED)
    if wanted.mode != WEIGHED or is_for_one or wanted.sides == "one":
        scale = wanted.keyframe_scale or (THE_MODELS if wanted.mode == "image" else 1.0)
        sides, keyframes = wanted.sides or "one", wanted.keyframes or "fixed"
        return replace(wanted, sides=sides, keyframes=keyframes, keyframe_scale=scale)
    if wanted.sides is None and wanted.latency == "low" and _completed(model, wanted).sides == "both":
        return replace(wanted, sides="past")
    return wanted


def _refuse_without_effect(complete: InferenceOptions, usual: InferenceOptions) -> None:
    """Raise UsageError if some of the ``complete`` options have no effect with the others, and are not as ``usual``."""
    if complete.sides == "one":
        if complete.keyframes == "adaptive":
            raise UsageError(f"adaptive keyframes need {_WEIGHED}")
        if complete.keyframe_scale != 1 and complete.mode != "image":
            raise UsageError(f"larger keyframes need {_WEIGHED}, or mode image")
        return
    if complete.mode != WEIGHED:
        raise UsageError(f"--sides {complete.sides} works in mode {WEIGHED} only")
    if complete.sides == "both" and complete.latency == "low":
        raise UsageError("both sides need the next keyframe, and low latency waits for nothing; use --sides past")
    for name in ONE_SIDED:
        if getattr(complete, name) != getattr(usual, name):
            raise UsageError(f"--{name} only has an effect with --sides one")


def in_mode(model: LoadedModel, options: InferenceOptions, mode: str) -> InferenceOptions:
    """Complete ``options``, perhaps those of another mode, for ``mode``, without what has no effect there."""
    if mode == "image":
        options = replace(options, sides=THE_MODELS, keyframes=THE_MODELS)
    elif mode != WEIGHED or (options.mode == "image" and options.sides == "one"):
        options = _one_sided(model, options)
    elif options.sides in ("past", "both"):
        options = replace(options, **dict.fromkeys(ONE_SIDED, THE_MODELS))
    return checked_options(model, options, mode=mode)


def _one_sided(model: LoadedModel, options: InferenceOptions) -> InferenceOptions:
    """Return ``options`` with one side, and all frames as large as keyframes are, so that modes can be compared."""
    size = _completed(model, options).keyframe_size
    return replace(options, sides="one", keyframes=THE_MODELS, keyframe_scale=1.0, size=size)


def describe_method(options: InferenceOptions) -> str:
    """Describe in a few words which keyframes frames refer to, and how."""
    larger = f", keyframes {options.keyframe_scale:g} times as large" if options.keyframe_scale > 1 else ""
    frames = f"keyframe interval {options.keyframe_interval}"
    if options.keyframes == "adaptive":
        frames = f"adaptive keyframes, at most {options.longest_interval} frames apart"
    if options.sides != "one":
        return f"{frames}, {'both sides' if options.sides == 'both' else 'only those before'}{larger}"
    return f"{frames}, threshold {options.threshold:g}, {options.correlation} correlation"


def variant_options(
    model: LoadedModel, variant: str, options: InferenceOptions | None = None, **given: Any
) -> InferenceOptions:
    """Complete ``options`` for one of ``MODE_VARIANTS``: a mode, optionally followed by a correlation. A correlation
    needs one side; ``sides`` and ``keyframes`` apply to the variants without one."""
    mode, _, correlation = variant.partition("-")
    wanted = replace(options or InferenceOptions(), **given)
    if correlation:
        wanted = _one_sided(model, replace(wanted, correlation=correlation))
    return in_mode(model, wanted, mode)


def check_variants(variants: Sequence[str], options: InferenceOptions | None = None) -> None:
    """Raise UsageError if some of ``MODE_VARIANTS`` are named twice, or if ``options`` cannot be for any of them."""
    if len(set(variants)) < len(variants):
        raise UsageError(f"a mode is named twice: {','.join(variants)}")
    is_weighed = options is not None and (options.sides in ("past", "both") or options.keyframes == "adaptive")
    if is_weighed and WEIGHED not in variants:
        raise UsageError(f"--sides past or both and adaptive keyframes are for mode {WEIGHED}; name it, too")

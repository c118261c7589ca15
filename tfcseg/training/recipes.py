"""Numbers of the two recipes: distillation from teachers on unlabelled media, and the paper's on a VSPW folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tfcseg.labels.label_sets import LabelSet
from tfcseg.training.datasets import SampleStream, Source
from tfcseg.training.processes import processes_in_all

VALIDATION_SAMPLES = 64
VALIDATION_SEED = 20_240_229

SUPERVISED_STEPS, SUPERVISED_BATCH = 160_000, 8
"""The paper states neither; SegFormer and its successors on VSPW use these. The batch is that of all processes."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Numbers of a training run; a checkpoint made with other numbers is refused."""

    stage: str
    """``image`` (step 1), ``tfc`` (step 2, clips of one interval) or ``attention`` (the sparse attention alone)."""
    steps: int
    batch: int
    """Samples per step and process."""
    learning_rate: float
    head_rate_scale: float = 10.0
    """Factor on the learning rate for the head and the TFC layer (SegFormer's recipe)."""
    weight_decay: float = 0.01
    warmup_steps: int = 100
    bce_weight: float = 1.0
    max_gradient_norm: float | None = 5.0
    """Clips gradients; None does not (SegFormer's recipe)."""
    crop: int = 320
    """Side of a sample in px."""
    short_side_px: int = 480
    """Size of the network's input at inference, for training on a VSPW folder."""
    init: str = ""
    """Initial weights, as given by the user."""
    train_norms: bool = True
    """False keeps the statistics of batch norm, as step 2 must not change the image network."""
    averaging: float = 0.999
    """Decay of the running average of the weights, which is validated and saved."""
    seed: int = 0
    frozen: tuple[str, ...] = ()
    """Prefixes of the names of parameters that are not trained."""
    correlation: str = "paper"
    """``paper``, ``aligned``, or ``both`` in turn, so that the same weights work with either."""
    folder_weights: tuple[tuple[str, float], ...] = ()
    """(folder, weight): how often its photos and clips are drawn, relative to others."""


@dataclass(frozen=True, slots=True)
class Material:
    """Data and classes of a training run."""

    sources: Sequence[Source]
    shares: Sequence[float]
    """How often each source is drawn, relative to others."""
    validation: Source
    labels: LabelSet
    description: str
    left_out: Sequence[str] = ()
    """Damaged data that are skipped, one line each."""

    def streams(self, options: TrainOptions) -> tuple[SampleStream, SampleStream]:
        """Samples for training, and for validation."""
        count = options.steps * options.batch * processes_in_all()
        return (
            SampleStream(self.sources, self.shares, count=count, seed=options.seed),
            SampleStream([self.validation], [1.0], count=VALIDATION_SAMPLES, seed=VALIDATION_SEED),
        )


def recipe_options(stage: str, *, supervised: bool, given: dict[str, Any]) -> TrainOptions:
    """Numbers of a stage; those in ``given`` replace the recipe's unless they are None.

    Supervised: AdamW at 6e-5, head ten times that, poly schedule (paper, *Training*; SegFormer). Distilled: higher
    rates, thanks to the ImageNet backbone and soft targets; lower in stage ``tfc``, to preserve the image network.
    Stage ``attention`` is the same on all data, since it needs no labels.
    """
    if stage == "attention":
        base = attention_options(steps=2000, batch=4)
    elif supervised:
        steps = given.get("steps") or SUPERVISED_STEPS
        base = TrainOptions(
            stage,
            steps=steps,
            batch=max(1, SUPERVISED_BATCH // processes_in_all()),
            learning_rate=6e-5,
            warmup_steps=min(1500, steps // 10),  # short runs need a shorter warm-up
            # The paper does not clip gradients and scores the last weights, not an average.
            max_gradient_norm=None,
            averaging=0.0,
        )
    elif stage == "image":
        base = TrainOptions(stage, steps=4000, batch=8, learning_rate=2e-4, weight_decay=0.02, warmup_steps=50)
    else:
        base = TrainOptions(
            stage,
            steps=1500,
            batch=4,
            learning_rate=2e-5,
            head_rate_scale=20.0,
            warmup_steps=50,
            averaging=0.995,
            train_norms=False,
            # The head learns what to compare, MSDA what to repair; a frozen backbone halves the time.
            frozen=("backbone.",),
            correlation="both",
        )
    return replace(base, **{name: value for name, value in given.items() if value is not None})


def attention_options(*, steps: int, batch: int) -> TrainOptions:
    """Numbers of stage ``attention``, in which the image network is frozen."""
    return TrainOptions(
        "attention",
        steps=steps,
        batch=batch,
        learning_rate=1e-3,
        head_rate_scale=1.0,
        warmup_steps=min(50, steps // 10),
        max_gradient_norm=1.0,
        averaging=0.99,
        train_norms=False,
        frozen=("backbone.", "decode_head.", "things."),
        correlation="both",
    )

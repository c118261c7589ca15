"""The training loop: optimiser, schedule, checkpoints, log and validation."""

from __future__ import annotations

import copy
import json
import math
import pickle
import signal
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tfcseg.errors import TfcsegError, WeightsError
from tfcseg.files import make_folder, output_errors, replace_atomically, sync
from tfcseg.interrupts import noted_interrupts, unseen_interrupts
from tfcseg.model.options import CORRELATIONS, PAPER_OPTIONS
from tfcseg.model.tfc import TFCSegmenter
from tfcseg.options import OnStep
from tfcseg.training.datasets import Sample
from tfcseg.training.objective import attention_losses, clip_losses, image_losses, normalise, validation_miou
from tfcseg.training.processes import copy_from_first, start_processes, sum_gradients, sum_over_processes
from tfcseg.training.recipes import TrainOptions
from tfcseg.weights.loading import save_model
from tfcseg.weights.model_card import ModelCard

CHECKPOINT_FORMAT = "tfcseg-checkpoint-2"


class Trainer:
    """A training run in ``folder``: checkpoint.pt, log.jsonl, best.safetensors and last.safetensors.

    ``dtype`` is the type of the saved weights.
    """

    def __init__(
        self,
        network: TFCSegmenter,
        card: ModelCard,
        options: TrainOptions,
        train: Dataset[Sample],
        validation: Dataset[Sample],
        folder: Path,
        *,
        device: torch.device,
        precision: torch.dtype,
        workers: int,
        dtype: torch.dtype = torch.float16,
        report: Callable[[dict[str, Any]], None] = lambda record: None,
        on_step: OnStep = lambda step, steps: None,
    ) -> None:
        self.rank, self.world = start_processes(device)
        if device.type == "cuda" and self.world > 1:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        self.network: TFCSegmenter = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.card, self.options, self.folder = card, options, folder
        self.train_samples, self.validation_samples = train, validation
        self.device, self.precision, self.workers, self.dtype = device, precision, workers, dtype
        self.report, self.on_step = report, on_step
        if device.type == "cpu":
            use_float32_depthwise(self.network)
        if self.world > 1:
            copy_from_first(self.network)
        self.objective = {"image": image_losses, "tfc": clip_losses, "attention": attention_losses}[options.stage]
        groups = _parameter_groups(network, options)
        self.optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, weight_decay=options.weight_decay)
        self.trained = [p for group in groups for p in group["params"]]
        self.average: TFCSegmenter = copy.deepcopy(self.network).requires_grad_(False).eval()
        """The network with an exponential moving average of the weights, which is validated and saved."""
        self.step, self.best = 0, -math.inf

    def run(self, *, validate_every: int, checkpoint_every: int, log_every: int = 20) -> float:
        """Train to the last step; returns the best validation score (mIoU, 0–100).

        After Ctrl-C or SIGTERM the step is finished, a checkpoint saved and KeyboardInterrupt raised.
        """
        make_folder(self.folder)
        self._resume()
        started, first = time.perf_counter(), self.step
        interval: list[dict[str, float]] = []
        batch_numbers = range(self.step * self.world + self.rank, self.options.steps * self.world, self.world)
        numbers = [[n * self.options.batch + i for i in range(self.options.batch)] for n in batch_numbers]
        with noted_interrupts(_forget_workers, patient=self.world > 1) as interrupted:
            for batch in load_batches(self.train_samples, numbers, self.workers, interrupted):
                rate = learning_rate(self.options, self.step)
                interval.append(self._train_step(batch))
                self.step += 1
                last = self.step == self.options.steps
                if not self.rank:
                    self.on_step(self.step, self.options.steps)
                if self.step % log_every == 0 or last:
                    pace_hz = (self.step - first) / (time.perf_counter() - started)
                    self._log(self._progress(interval, rate, pace_hz, batch.images.shape[1]))
                    interval.clear()
                if self.step % validate_every == 0 or last:
                    self._validate()
                # All processes must stop at the same step, or the others would wait forever.
                if sum_over_processes(torch.tensor(float(interrupted()), device=self.device)) > 0:
                    break
                if self.step % checkpoint_every == 0 and not last:
                    self.save_checkpoint()
            self.save_checkpoint()
            if self.step < self.options.steps:
                raise KeyboardInterrupt
        return self.best

    def _progress(
        self, interval: Sequence[dict[str, float]], learning_rate: float, pace_hz: float, frames: int
    ) -> dict[str, Any]:
        """Log record of the steps since the last record: mean losses and speed."""
        return {
            "step": self.step,
            "steps": self.options.steps,
            **{name: round(fmean(losses[name] for losses in interval), 5) for name in interval[0]},
            "lr": learning_rate,
            "images_per_s": round(pace_hz * self.options.batch * self.world * frames, 2),
            "eta_s": round((self.options.steps - self.step) / pace_hz),
        }

    def _train_step(self, batch: Sample) -> dict[str, float]:
        _set_training(self.network, train_norms=self.options.train_norms)
        # Dropout is the same whether training was resumed or not.
        seeds = np.random.SeedSequence((self.options.seed, self.step, self.rank))
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.options, self.step) * group["scale"]
        losses = self._losses(batch)
        weights = {"seg": 1.0, "repair": 1.0, "bce": self.options.bce_weight}
        # Gradients are summed over processes: dividing by their total weight gives the mean over the whole batch.
        totals = {name: sum_over_processes(loss.weight).clamp_min(1e-6) for name, loss in losses.items()}
        loss = torch.stack([weights[name] * losses[name].total / totals[name] for name in losses]).sum()
        if not torch.isfinite(loss):
            raise TfcsegError(f"the loss is {loss.item()} at step {self.step}: start again with a lower --lr")
        if loss.requires_grad or self.world > 1:  # sparse attention alone has no gradient where nothing changed
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            sum_gradients(self.trained)
            if self.options.max_gradient_norm is not None:
                nn.utils.clip_grad_norm_(self.trained, self.options.max_gradient_norm)
            self.optimizer.step()
        self._update_average()
        return {name: float(sum_over_processes(losses[name].total.detach()) / totals[name]) for name in losses}

    @torch.no_grad()
    def _update_average(self) -> None:
        """Add the weights after a step. The decay starts small, so that the initial weights are soon forgotten."""
        decay = min(self.options.averaging, (1 + self.step) / (10 + self.step))
        for mean, tensor in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if tensor.is_floating_point():
                mean.lerp_(tensor, 1 - decay)
            else:
                mean.copy_(tensor)

    def _losses(self, batch: Sample) -> dict[str, Any]:
        images = normalise(batch.images.to(self.device, non_blocking=True), self.card.preprocessing)
        labels = batch.labels.to(self.device, non_blocking=True)
        low = self.precision is not torch.float32
        correlation = self.options.correlation
        if correlation == "both":
            correlation = CORRELATIONS[self.step % len(CORRELATIONS)]
        with torch.autocast(self.device.type, self.precision, enabled=low):
            return self.objective(self.network, images, labels, correlation)

    def _validate(self) -> None:
        """Score the averaged weights and save them as last.safetensors, and as best.safetensors if they are best."""
        if self.rank:
            return
        score = 100 * validation_miou(self.predict, self.validation_samples, self.network.config.num_classes)
        self._log({"step": self.step, "validation_miou": round(score, 3), "best": round(max(score, self.best), 3)})
        save_model(self.folder / "last.safetensors", self.average, self.card, dtype=self.dtype)
        if score > self.best:
            self.best = score
            save_model(self.folder / "best.safetensors", self.average, self.card, dtype=self.dtype)

    def predict(self, sample: Sample) -> Tensor:
        """Logits (T, K, s, s) of a sample with averaged weights; except in stage ``image`` by the paper's method."""
        images = normalise(sample.images.to(self.device), self.card.preprocessing)
        with torch.inference_mode():
            if self.options.stage == "image":
                return self.average.image(images)
            first, memory = self.average.keyframe(images[:1])
            return torch.cat([first, self.average.non_keyframes(images[1:], memory, PAPER_OPTIONS).logits])

    def _log(self, record: dict[str, Any]) -> None:
        if self.rank:
            return
        path = self.folder / "log.jsonl"
        with output_errors(f"cannot write {str(path)!r}"), path.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"time": round(time.time(), 1), **record}) + "\n")
        self.report(record)

    def save_checkpoint(self) -> None:
        """Save everything needed to resume; OutputError on failure."""
        if self.rank:
            return
        state = {
            "format": CHECKPOINT_FORMAT,
            "options": _conditions(self.options, self.card),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
        }
        _write_archive(self.folder / "checkpoint.pt", state)

    def _resume(self) -> None:
        """Load the folder's checkpoint, if there is one, running no code in it; WeightsError if it does not fit."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state: Any = None
        with suppress(pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError):
            if zipfile.is_zipfile(path):  # as torch.save writes; anything else would be an old-style pickle
                state = torch.load(path, map_location=self.device, weights_only=True)
        if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
            raise WeightsError(f"{path} is not a tfcseg checkpoint, or a damaged one; train into another folder")
        before, now = state["options"], _conditions(self.options, self.card)
        other = [f"{name} {before[name]}, now {now[name]}" for name in now if before.get(name, now[name]) != now[name]]
        if other:
            raise WeightsError(f"{path} has other options or data ({'; '.join(other)}); train into another folder")
        try:
            self.network.load_state_dict(state["network"])
        except RuntimeError:
            other_kind = f"{path} belongs to a network of another kind or size; train into another folder"
            raise WeightsError(other_kind) from None
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best = int(state["step"]), float(state["best"])


def _conditions(options: TrainOptions, card: ModelCard) -> dict[str, Any]:
    """What all steps of a run have in common, since its card says so."""
    return {**asdict(options), "trained_on": card.trained_on}


def _write_archive(path: Path, state: dict[str, Any]) -> None:
    with replace_atomically(path) as temporary:
        with temporary.open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # torch hides why its archive could not be written
                raise error.__context__ or error from None
        sync(temporary)  # it replaces the only other one, which a power cut must not take away


def learning_rate(options: TrainOptions, step: int) -> float:
    """Learning rate of a step: linear warm-up, then the poly schedule of power 1 (SegFormer)."""
    warm = min(1.0, (step + 1) / max(1, options.warmup_steps))
    return options.learning_rate * warm * max(0.0, 1 - step / options.steps)


def _set_training(network: TFCSegmenter, *, train_norms: bool) -> None:
    network.train()
    for part in network.children():
        if not any(parameter.requires_grad for parameter in part.parameters()):
            part.eval()  # not trained: no dropout, no updated statistics
    if not train_norms:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
                module.eval()


def load_batches(
    samples: Dataset[Sample], numbers: list[list[int]], workers: int, interrupted: Callable[[], bool]
) -> Iterator[Sample]:
    """Yield a batch per entry of ``numbers``, prepared ahead by ``workers`` processes.

    Ends early if they were killed by the signal that has also ``interrupted`` this process.
    """
    loader: DataLoader[Sample] = DataLoader(
        samples,
        batch_sampler=numbers,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_start_worker,
    )
    try:
        with unseen_interrupts():
            batches = iter(loader)
        yield from batches
    except TfcsegError as error:
        # Errors of worker processes arrive with a traceback in the message.
        kind = type(error)
        raise kind(str(error).rstrip().rsplit(f"{kind.__name__}: ", 1)[-1]) from None
    except (OSError, RuntimeError):
        if not interrupted():
            raise


def _forget_workers() -> None:
    """Let torch no longer raise an error, in the middle of a step, as soon as a worker process has ended."""
    signal.signal(signal.SIGCHLD, lambda number, frame: None)


def _start_worker(number: int) -> None:
    cv2.setNumThreads(1)  # leave the cores to the network


class Float32Conv2d(nn.Conv2d):
    """A convolution in float32, also under autocast, which gives its result in the lower type."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H', W')."""
        if not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float()).to(torch.get_autocast_dtype("cpu"))


def use_float32_depthwise(network: nn.Module) -> None:
    """Make depthwise convolutions that are slow in bfloat16 on CPUs a `Float32Conv2d`, in place.

    Gradients of strided, dilated and 5×5 ones take three to five times as long as in float32: more than half of a
    training step of both light backbones.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels == module.out_channels > 1:
            is_plain = module.kernel_size == (3, 3) and module.stride == module.dilation == (1, 1)
            if not is_plain:
                module.__class__ = Float32Conv2d


def _parameter_groups(network: TFCSegmenter, options: TrainOptions) -> list[dict[str, Any]]:
    """Parameters by learning rate and weight decay; norms and biases have no decay (in SegFormer only norms).

    The paper does not state the rate of MSDA; here it is the head's.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    idle = ("update.",) if options.stage == "image" else ()  # step 1 has no frames between keyframes
    for name, parameter in network.named_parameters():
        if name.startswith((*idle, *options.frozen)):
            parameter.requires_grad_(False)
            continue
        scale = 1.0 if name.startswith("backbone.") else options.head_rate_scale
        decay = options.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": parameters, "scale": scale, "weight_decay": decay} for (scale, decay), parameters in groups.items()
    ]

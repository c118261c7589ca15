"""A run of one video: everything it needs, which results it writes and where, and whether they are still there.

Letters: K classes.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tfcseg.errors import OutputError, UsageError
from tfcseg.files import replace_atomically
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.steadied import classes_in, compared_values, shown_classes
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import FrameSource, VideoInfo
from tfcseg.media.mask_folder import MaskFolder
from tfcseg.media.masks import Mask, is_whole_mask, read_values
from tfcseg.media.writer import part_length
from tfcseg.model.evidence import CarryOver, SectionEnd, WeightedLogits
from tfcseg.report.recorder import PageRecorder
from tfcseg.runs.options import ResultOptions, RunOptions
from tfcseg.runs.outputs import OutputDir, numbered
from tfcseg.runs.state import Checkpoint, Identity, RunState
from tfcseg.weights.loading import LoadedModel

CARRIED_NAME = "carried.npz"  # file with the keyframe's carry-over in a checkpoint's folder


def check_mask_names(options: ResultOptions, info: VideoInfo) -> None:
    """Raise UsageError if frames have no file names to name masks after, or two share one."""
    if options.mask_names != "source" or not (options.masks or options.confidence):
        return
    if not info.names:
        raise UsageError(f"{info.path}: its frames are not files; --mask-names source is for folders of images")
    (stem, count), *_ = Counter(Path(name).stem for name in info.names).most_common(1)
    if count > 1:
        same = ", ".join(name for name in info.names if Path(name).stem == stem)
        raise UsageError(f"{info.path}: {same} would get the same mask {stem}.png; use --mask-names number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run on an opened source, whose options were checked before any result was touched."""

    run: RunOptions
    out: OutputDir
    state: RunState
    model: LoadedModel
    network: IntervalNetwork
    identity: Identity | None
    frames: FrameSource
    given: MaskFolder | None  # masks that are made steady
    is_shared: bool  # whether other processes segment the frames, which then do not come in groups

    @property
    def options(self) -> ResultOptions:
        """Which results are written."""
        return self.run.results

    @property
    def info(self) -> VideoInfo:
        """Facts about the source."""
        return self.frames.info

    @property
    def labels(self) -> LabelSet:
        """The classes that are drawn."""
        return self.model.labels if self.given is None else shown_classes(self.given)

    @property
    def part_frames(self) -> int:
        """Frames per part of the videos."""
        return part_length(self.network.frames_at_once)

    @property
    def saves_between_parts(self) -> bool:
        """Whether a run can also be resumed from the end of a group of frames."""
        return self.state.is_resumable and self.network.options.latency == "normal" and not self.is_shared

    def is_intact(self, checkpoint: Checkpoint) -> bool:
        """Whether everything written before ``checkpoint`` is still on disk."""
        frames = checkpoint.frames
        parts = range(0, checkpoint.part_start, self.part_frames)
        files = [self.state.part(name, first) for name in self.options.videos for first in parts]
        try:
            if self.options.page and self.recorder(checkpoint).frames != frames:
                return False
            self.restore_carried(checkpoint)
            if self.options.frames_csv and self.out.frames_csv.stat().st_size < checkpoint.rows_bytes:
                return False
        except (OSError, OutputError):
            return False
        folders = {self.out.masks: self.options.masks, self.out.confidence: self.options.confidence}
        masks = [self.mask(folder, at) for folder, is_written in folders.items() if is_written for at in range(frames)]
        if self.given is not None:  # not every frame has one
            masks = [path for at, path in enumerate(masks) if at in self.given.files or path.exists()]
        if self.keeps_labels:
            first = 0 if self.options.formats else min(checkpoint.part_start, frames - 1)
            masks += [self.kept_labels(at) for at in range(first, frames)]
        return all(path.is_file() for path in files) and all(map(is_whole_mask, masks))

    @property
    def keeps_labels(self) -> bool:
        """Whether labels are kept where masks are not wanted.

        All of them to export them at the end, or some to resume: the next frame's are compared with the last ones, and
        parts that were not complete when the run was stopped are drawn again.
        """
        return not self._draws_masks and (bool(self.options.formats) or self.state.is_resumable)

    @property
    def _draws_masks(self) -> bool:
        """Whether the masks that are written are the labels that are drawn."""
        return self.options.masks and self.given is None

    def kept_labels(self, index: int) -> Path:
        """Where the labels of a frame are, as long as they are needed."""
        return self.mask(self.out.masks, index) if self._draws_masks else numbered(self.state.labels, index)

    def mask_names(self, frames: int) -> tuple[str, ...]:
        """Files of the masks of the first ``frames`` frames; none if they are called by number."""
        is_named = self.given is not None or self.options.mask_names == "source"
        return tuple(self.mask(self.out.masks, index).name for index in range(frames)) if is_named else ()

    def mask(self, folder: Path, index: int) -> Path:
        """Path of one frame's PNG."""
        if self.given is not None:
            return folder / self.given.name(index)
        if self.options.mask_names == "source":
            return folder / f"{Path(self.info.names[index]).stem}.png"
        return numbered(folder, index)

    def names(self, index: int) -> Sequence[str]:
        """Names of the classes in a frame whose mask is written."""
        if self.given is None:
            return self.labels.names
        return classes_in(self.given, self.compared_values(index)[0], self.labels).names

    def compared_values(self, index: int) -> list[Mask]:
        """What a frame's steadied mask and the one that was given have to compare with the next frame's."""
        given, path = self.given, self.mask(self.out.masks, index)
        assert given is not None
        mask = read_values(path, given.classes.by_colour)[0] if path.exists() else None
        return compared_values(given, (self.info.height, self.info.width), given.read(index), mask)

    def restore_carried(self, checkpoint: Checkpoint) -> CarryOver | None:
        """Load the carry-over for the keyframe after ``checkpoint``; OutputError if it is missing or damaged."""
        if self.given is not None or self.network.options.sides == "one":
            return None
        return load_carried(self.state.folder_at(checkpoint.frames) / CARRIED_NAME)

    def recorder(self, checkpoint: Checkpoint | None) -> PageRecorder:
        """Collects the data of report.html, from ``checkpoint`` on; OutputError if what that saved is damaged."""
        recorder = PageRecorder(self.labels.palette_array(), self.info.frame_rate, self.options.unsure_below)
        if checkpoint is not None:
            recorder.restore(self.state.folder_at(checkpoint.frames))
        return recorder


def save_carried(path: Path, carried: CarryOver) -> None:
    """Write ``carried`` to ``path``; raise OutputError if that fails."""
    # float32 represents all values of the half precisions, which NumPy lacks.
    arrays = {name: tensor.float().cpu().numpy() for name, tensor in carried._asdict().items()}
    with replace_atomically(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def load_carried(path: Path) -> CarryOver:
    """Load what `save_carried` wrote, as float32 on the CPU; raise OutputError if it is missing or damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            kind = next(each for each in (SectionEnd, WeightedLogits) if {*each._fields} <= {*arrays.files})
            # Keep the network's memory order: sums over channels then round as before.
            tensors = (torch.from_numpy(arrays[name]) for name in kind._fields)
            return kind(*(tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors))
    except (OSError, ValueError, StopIteration, EOFError, zipfile.BadZipFile) as error:
        raise OutputError(f"cannot read {str(path)!r} ({error}); run again from the start") from error

"""Draw a few frames in one picture: source, labels, similarity, updated points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from tfcseg.drawing.pictures import FORMATS, Column, draw_frame_grid, write_picture
from tfcseg.errors import InputError, UsageError
from tfcseg.files import claimed_files
from tfcseg.inference.options import checked_options
from tfcseg.inference.segment import segment, segment_with
from tfcseg.media.frames import FrameSource
from tfcseg.media.reader import open_frames
from tfcseg.media.source import Given, Source
from tfcseg.model.options import InferenceOptions
from tfcseg.runs.outputs import default_output
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import LoadedModel, open_model

MOST_FRAMES = 12

OnFrame = Callable[[int, int], None]  # called with the number of computed frames, and the number to compute


def make_frame_grid(
    source: Given,
    output: str | Path | None = None,
    model: str | Path | LoadedModel = "default",
    *,
    frames: Sequence[int],
    start_s: float | None = None,
    device: DeviceOptions = DeviceOptions(),
    overwrite: bool = False,
    allow_network: bool = False,
    on_frame: OnFrame = lambda done, total: None,
    inference: InferenceOptions | None = None,
) -> Path:
    """Draw ``frames`` of a video, counted from 0 at ``start_s``, side by side; returns the picture's path.

    output: a .png or .jpg file, by default ``<stem>_frames.png`` in the current folder. All frames up to the last one
    are computed, so that intervals are those of a run. Failures raise a TfcsegError with one line.
    """
    wanted = _checked_frames(frames)
    source = Source.of(source, allow_network=allow_network)
    path = Path(output) if output is not None else default_output(source, "frames.png")
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{str(path)!r} is not a picture; give a file that ends in .png or .jpg")
    with claimed_files(path.parent, [path.name], inputs=source.places, overwrite=overwrite):
        loaded = open_model(model, device)
        options = checked_options(loaded, inference)
        with open_frames(source, start_s=start_s) as read:
            columns = _columns(read, loaded, options, wanted, on_frame)
        threshold = options.threshold if options.sides == "one" else None
        write_picture(path, draw_frame_grid(columns, loaded.labels, threshold))
    return path


def _checked_frames(frames: Sequence[int]) -> list[int]:
    if not 1 <= len(frames) <= MOST_FRAMES:
        raise UsageError(f"a picture shows 1 to {MOST_FRAMES} frames, not {len(frames)}")
    if min(frames) < 0:
        raise UsageError(f"frames are counted from 0; there is no frame {min(frames)}")
    if len(set(frames)) < len(frames):
        raise UsageError(f"a frame is named twice: {','.join(map(str, frames))}")
    return sorted(frames)


def _columns(
    read: FrameSource, model: LoadedModel, options: InferenceOptions, wanted: Sequence[int], on_frame: OnFrame
) -> list[Column]:
    """The requested frames with the labels of both modes; InputError if the video ends before the last one."""
    columns: list[Column] = []
    count = 0
    with closing(segment_with(read, model, options)) as frames:  # a generator
        for frame in frames:
            count += 1
            on_frame(count, wanted[-1] + 1)
            if frame.index in wanted:
                alone = next(iter(segment([frame.image], model, mode="image", size=options.size)))
                columns.append(Column(frame, alone.labels))
            if frame.index >= wanted[-1]:
                return columns
    raise InputError(f"{read.info.path}: has {count} frames, so there is no frame {wanted[-1]}; choose smaller numbers")

"""Frames of a data set with the labels of each of several runs, for the page of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfcseg.drawing.render import shrink_labels
from tfcseg.errors import DataError
from tfcseg.evaluation.frame_pictures import colour_key, draw_frame, pack, unpack
from tfcseg.evaluation.vspw import VspwDataset, VspwFrame, VspwVideo, read_target
from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.metrics.scores import Labels
from tfcseg.report.moments import picture_size

_WATCHED = 60
"""Number of frames whose labels are kept, for every run."""

_SHOWN = 8


class Gallery:
    """Watches frames spread over the ``videos``, the same ones for every run."""

    def __init__(self, dataset: VspwDataset, videos: Sequence[str]) -> None:
        self._dataset = dataset
        watched = [videos[at] for at in _spread(len(videos), _WATCHED)]
        each = -(-_WATCHED // max(1, len(watched)))
        self._watched: dict[tuple[str, str], VspwFrame] = {}
        for name in watched:
            frames = [frame for frame in dataset.read_video(name).frames if frame.mask is not None]
            self._watched |= {(name, frames[at].stem): frames[at] for at in _spread(len(frames), each)}
        self._runs: dict[str, dict[tuple[str, str], bytes]] = {}

    def watch(self, run: str) -> Callable[[VspwVideo, VspwFrame, Labels], None]:
        """Callback for every frame of ``run`` and its labels in classes of the data set."""
        kept = self._runs.setdefault(run, {})

        def on_frame(video: VspwVideo, frame: VspwFrame, labels: Labels) -> None:
            if (video.name, frame.stem) in self._watched:
                kept[video.name, frame.stem] = pack(shrink_labels(labels, picture_size(labels.shape)))

        return on_frame

    def pictures(self, runs: Mapping[str, str], reference: str, candidate: str) -> dict[str, Any]:
        """Frames that ``candidate`` and ``reference`` label most differently (``gallery``), and the colours' ``key``.

        ``runs`` are names with their titles, in the order of the pictures.
        """
        common = [place for place in self._watched if all(place in self._runs[run] for run in runs)]
        drawn, maps = [], []
        for place in sorted(common, key=lambda place: -self._differing(place, reference, candidate))[:_SHOWN]:
            target = self._target(place)
            if target is None:
                continue
            shown = {title: unpack(self._runs[run][place]) for run, title in runs.items()}
            maps += [target, *shown.values()]
            right = [f"{title} {100 * _right(each, target):.1f} %" for title, each in shown.items()]
            drawn.append(
                {
                    "title": f"{place[0]}, frame {place[1]}",
                    "value": self._differing(place, reference, candidate),
                    "pictures": draw_frame(self._watched[place].image, target, shown, self._dataset.labels),
                    "notes": ["right: " + ", ".join(right)],
                }
            )
        return {"gallery": drawn, "key": colour_key(maps, self._dataset.labels)}

    def _differing(self, place: tuple[str, str], reference: str, candidate: str) -> float:
        """Share of the pixels that two runs label differently."""
        one, other = (unpack(self._runs[run][place]) for run in (reference, candidate))
        return float((one != other).mean())

    def _target(self, place: tuple[str, str]) -> Labels | None:
        mask = self._watched[place].mask
        try:
            target = None if mask is None else read_target(mask, len(self._dataset.labels))[0]
        except DataError:  # the evaluation reports it
            return None
        return None if target is None else shrink_labels(target, picture_size(target.shape))


def _right(labels: Labels, target: Labels) -> float:
    """Share of the pixels with a class whose label is right."""
    counted = target != NO_CLASS
    return float((labels == target)[counted].mean()) if counted.any() else 0.0


def _spread(count: int, wanted: int) -> list[int]:
    """``wanted`` of ``count`` positions, evenly spread; all if there are fewer."""
    return sorted(set(np.linspace(0, count - 1, min(count, wanted)).round().astype(int).tolist())) if count else []

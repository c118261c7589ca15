"""Write the videos of a run: overlay, side by side, and source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.legend import Legend
from tfcseg.drawing.render import Image, Labels, overlay, side_by_side
from tfcseg.media.writer import PartedVideo


class RenderedVideos:
    """Draws each frame once for all ``videos``, which are called ``overlay``, ``side_by_side`` and ``source``.

    ``palette`` is (K, 3); ``visible`` (K,) are the classes to draw, None for all. OutputError if a video cannot be
    written.
    """

    def __init__(
        self,
        videos: Mapping[str, PartedVideo],
        palette: NDArray[np.uint8],
        *,
        alpha: float,
        visible: NDArray[np.bool_] | None,
        legend: Legend | None,
    ) -> None:
        self._videos = videos
        self._palette, self._alpha, self._visible, self._legend = palette, alpha, visible, legend

    def write(self, image: Image, labels: Labels, shares: NDArray[np.float64]) -> None:
        """Append one frame, (H, W, 3) RGB, with its (H, W) ``labels`` and the (K,) ``shares`` of its classes."""
        if "source" in self._videos:
            self._videos["source"].write(image)
        if not self._videos.keys() - {"source"}:
            return
        picture = overlay(image, labels, self._palette, alpha=self._alpha, visible=self._visible)
        if self._legend is not None:
            self._legend.draw(picture, shares if self._visible is None else shares * self._visible)
        if "overlay" in self._videos:
            self._videos["overlay"].write(picture)
        if "side_by_side" in self._videos:
            self._videos["side_by_side"].write(side_by_side([image, picture], ["source", "tfcseg"]))

    def legend_state(self) -> dict[str, Any] | None:
        """State of the legend in JSON types; None without a legend."""
        return None if self._legend is None else self._legend.state()

    def end_part(self) -> Callable[[], None]:
        """Let the next frame start new parts; returns a function that completes these, in any thread."""
        endings = [video.end_part() for video in self._videos.values()]

        def complete() -> None:
            for ending in endings:
                ending()

        return complete

    def finish(self, part_frames: int) -> str | None:
        """Join the parts and name the videos; returns what happened to the sound, None without a video."""
        sound = None
        for video in self._videos.values():
            sound = video.finish(part_frames)
        return sound

    def stop(self) -> None:
        """Make a ``write`` in another thread fail soon; ``abort`` follows."""
        for video in self._videos.values():
            video.stop()

    def abort(self) -> None:
        """Drop the parts that are being written."""
        for video in self._videos.values():
            video.abort()

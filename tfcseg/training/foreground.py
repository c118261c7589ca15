"""Put things into a photo: drawn railings, fences, poles, doors and rows of seats, people and objects of other photos.

Teachers overlook railings and poles, which are thinner than their labels' grid, glass doors, the seats of waiting rooms
and people far away: they label what is behind them. Drawn ones have exact labels. Pasting objects follows Ghiasi et
al., "Simple Copy-Paste" (CVPR 2021).

Shapes: S side of the image, s = S / 4 of its labels, K = SCENES' classes. Photos are changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.labels.label_sets import SCENES
from tfcseg.training.augment import LABEL_STRIDE, as_bytes, log_uniform
from tfcseg.training.pseudo_clips import Labelled, blend, covered_part, cut_out, paste

RAILING_SHARE, POLE_SHARE, SEATS_SHARE, DOOR_SHARE = 0.25, 0.2, 0.3, 0.2
"""Shares of photos that get each kind of drawn thing; seats and doors, of photos with a floor."""

RAILING_HEIGHT, POLE_HEIGHT, SEATS_HEIGHT, DOOR_HEIGHT = (0.06, 0.5), (0.15, 1.2), (0.1, 0.45), (0.25, 1.0)
"""Ranges relative to the image, log-uniform."""

BEHIND_SEATS = 0.5
"""Share of the rows of seats that stand in front of a railing."""

BACKDROP_SHARE, PLINTH_SHARE = 0.4, 0.35
"""Shares of railings behind which another photo is seen (a street, a window, a hall below), and on a low wall."""

OBJECT_SHARE, PEOPLE_SHARE, PLANT_SHARE = 0.3, 0.35, 0.25
"""Shares of photos that get pasted objects and people, and of photos with a floor that get plants."""

OBJECT_EXTENT, PEOPLE_EXTENT, PLANT_EXTENT = (0.07, 0.6), (0.04, 0.3), (0.08, 0.4)
"""Ranges of their longer sides, as above: small people are easily overlooked."""

POT_SHARE = 0.7
"""Share of the pasted plants that stand in a drawn pot, which counts as part of the plant, as in COCO."""

PEOPLE_LIGHT = (0.3, 1.2)
"""Range of the factor on the brightness of pasted people: those in the shade are dark."""

LEAST_FLOOR = 0.05
"""Share of the labels that are floor in a photo where seats may stand."""

_WALL, _FENCE, _POLE, _CHAIR, _DOOR, _FLOOR, PERSON, PLANT = (
    SCENES.index(name) for name in ("wall", "fence", "pole", "chair", "door", "floor", "person", "plant")
)
_GROUND = [SCENES.index(name) for name in ("road", "sidewalk", "floor", "grass", "earth", "field")]
_OBJECTS = [
    SCENES.index(name)
    for name in (
        *("person", "car", "chair", "plant", "armchair", "dog", "cat", "horse", "cow", "sheep", "bird"),
        *("bus", "bicycle", "motorcycle", "bottle", "television", "truck"),
    )
]
_SUBPIXEL_BITS = 4
"""OpenCV draws lines between points in fixed-point numbers with this many bits behind the point."""

Points = NDArray[np.float64]
Area = NDArray[np.uint8]
"""How much of each pixel is covered, (S, S), 255 = all."""
Span = tuple[float, float]


class Photo(NamedTuple):
    """An image (S, S, 3) with soft labels (s, s, K), into which ``rng`` draws."""

    rng: np.random.Generator
    image: NDArray[np.uint8]
    soft: NDArray[np.uint8]

    @property
    def side(self) -> int:
        """S, in pixels."""
        return len(self.image)

    def areas(self, count: int) -> Area:
        """``count`` empty areas, (count, S, S)."""
        return np.zeros((count, self.side, self.side), np.uint8)

    def free_of_things(self) -> Area:
        """What is not covered by things such as people."""
        covered = self.soft[..., _OBJECTS].sum(-1, dtype=np.uint16).clip(0, 255).astype(np.uint8)
        return 255 - as_bytes(cv2.resize(covered, (self.side, self.side), interpolation=cv2.INTER_LINEAR))

    def label(self, area: Area, label: int, *, gain: float = 1.0) -> None:
        """Label cells by the share of them that ``area`` covers, times ``gain``."""
        covered = as_bytes(cv2.resize(area, self.soft.shape[1::-1], interpolation=cv2.INTER_AREA))
        here = covered_part(covered)
        share = np.minimum(covered[here] * (gain / 255), 1.0)[..., None].astype(np.float32)
        own = np.eye(self.soft.shape[-1], dtype=np.float32)[label] * 255
        self.soft[here] = np.rint(self.soft[here] * (1 - share) + own * share).astype(np.uint8)

    def draw_foot(self) -> Points:
        """Draw where something stands, (x, y) in pixels: somewhere on the ground, or anywhere if there is none."""
        rng, soft, side = self.rng, self.soft, self.side
        ground = np.isin(soft.argmax(-1), _GROUND) & (soft.max(-1) > 0)
        rows, columns = np.nonzero(ground)
        if not len(rows) or rng.random() < 0.2:
            return rng.uniform((0.0, 0.4), (1.0, 1.0)) * side
        column = rng.choice(columns)
        above = rows[columns == column].min()
        # Most things stand near the far end of the ground, or close behind it on a step or a low wall.
        reach = rng.normal(0, 0.08) if rng.random() < 0.6 else rng.uniform(0, 0.5)
        return np.array([column * LABEL_STRIDE, np.clip(above * LABEL_STRIDE + reach * side, 0.1 * side, 1.1 * side)])

    def draw_panel(self, heights: Span, lengths: Span) -> _Panel:
        """Draw a panel that stands on the ground; ``heights`` are relative to the image, ``lengths`` to the height."""
        rng = self.rng
        height = self.side * log_uniform(rng, heights)
        width = height * log_uniform(rng, lengths)
        growth = float(np.exp(rng.normal(0, 0.6)))
        left = self.draw_foot() - np.array([width * rng.random(), 0])
        bottom = np.array([left, left + np.array([width, rng.normal(0, 0.12) * width])])
        return _Panel(bottom, bottom - np.array([[0, height], [0, height * growth]]), growth, height, width)

    def draw_colour(self) -> Points:
        """Colour of iron or paint: mostly dark, at times light, or any."""
        rng, kind = self.rng, self.rng.random()
        gray = rng.uniform(5, 70) if kind < 0.5 else rng.uniform(150, 250) if kind < 0.75 else rng.uniform(40, 200)
        return np.clip(gray + rng.normal(0, 8 if kind < 0.75 else 40, 3), 0, 255)


class _Panel(NamedTuple):
    """An upright rectangle in perspective."""

    bottom: Points
    """Left and right end, (2, 2)."""
    top: Points
    growth: float
    """Height of the right end relative to the left one; the nearer one is higher."""
    height: float
    """Of the left end, in pixels."""
    width: float

    def point(self, along: float, up: float) -> Points:
        """Point of the image at a share of the panel's length and height."""
        seen_along = along / (along + (1 - along) * self.growth)  # what is further away looks shorter
        low, high = (ends[0] + (ends[1] - ends[0]) * seen_along for ends in (self.bottom, self.top))
        return np.asarray(low + (high - low) * up)

    def corners(self, along: Span, up: Span) -> NDArray[np.int32]:
        """Corners of a part of the panel, (4, 2) in pixels."""
        shares = [(along[0], up[0]), (along[1], up[0]), (along[1], up[1]), (along[0], up[1])]
        return np.rint([self.point(*share) for share in shares]).astype(np.int32)

    def fill(self, area: Area, along: Span, up: Span, strength: int = 255) -> None:
        """Draw a part of the panel into ``area``."""
        cv2.fillConvexPoly(area, self.corners(along, up), strength, cv2.LINE_AA)

    def outline(self, area: Area, along: Span, up: Span, thickness: float) -> None:
        """Draw the edges of a part of the panel into ``area``."""
        corners = self.corners(along, up)
        for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            _draw_line(area, start, end, thickness)

    def stroke(self, area: Area, start: Span, end: Span, thickness: float) -> None:
        """Draw a line between two points, each (along, up), into ``area``."""
        _draw_line(area, self.point(*start), self.point(*end), thickness)

    def behind(self, rng: np.random.Generator) -> _Panel:
        """Draw a longer and higher panel that stands close behind this one."""
        reach, further, higher = rng.uniform(0, 1.5, 2), rng.uniform(0, 0.3), rng.uniform(1.1, 2.2)
        along = self.bottom[1] - self.bottom[0]
        bottom = self.bottom + reach[:, None] * np.array([-along, along]) - np.array([0, further * self.height])
        up = self.top - self.bottom
        return _Panel(bottom, bottom + higher * up, self.growth, higher * self.height, self.width * (1 + reach.sum()))


def add_foreground(
    photo: Photo,
    *,
    draw_donor: Callable[[], Labelled],
    draw_people: Callable[[], Labelled],
    draw_plants: Callable[[], Labelled],
    draw_backdrop: Callable[[], Labelled],
) -> None:
    """Put drawn things and objects into a photo.

    ``draw_donor`` draws a photo whose objects may be pasted, ``draw_people`` one that shows people, ``draw_plants``
    one that shows plants, ``draw_backdrop`` what may be seen behind a railing, of the image's size.
    """
    rng = photo.rng
    is_room = (photo.soft.argmax(-1) == _FLOOR).mean() > LEAST_FLOOR
    if rng.random() < DOOR_SHARE and is_room:
        _add_door(photo)
    if rng.random() < RAILING_SHARE:
        _add_railing(photo, photo.draw_panel(RAILING_HEIGHT, (1.2, 10)), draw_backdrop)
    if rng.random() < POLE_SHARE:
        for _ in range(int(rng.integers(1, 5))):
            _add_pole(photo)
    if rng.random() < SEATS_SHARE and is_room:
        _add_seats(photo, draw_backdrop)
    if rng.random() < PLANT_SHARE and is_room:
        _paste(photo, draw_plants(), [PLANT], PLANT_EXTENT, in_pots=True)
    if rng.random() < OBJECT_SHARE:
        _paste(photo, draw_donor(), _OBJECTS, OBJECT_EXTENT)
    if rng.random() < PEOPLE_SHARE:
        for _ in range(int(rng.integers(1, 4))):
            image, labels = draw_people()
            lit = as_bytes(cv2.convertScaleAbs(image, alpha=log_uniform(rng, PEOPLE_LIGHT)))
            _paste(photo, (lit, labels), [PERSON], PEOPLE_EXTENT)


def _paste(photo: Photo, donor: Labelled, classes: Sequence[int], extents: Span, *, in_pots: bool = False) -> None:
    """Paste a thing of the donor, of one of the ``classes``, up to four times, if it has one; most plants in pots."""
    rng, side = photo.rng, photo.side
    mask = cut_out(rng, donor, classes)
    if mask is None:
        return
    for _ in range(int(rng.integers(1, 5))):
        extent = log_uniform(rng, extents) * side
        foot = photo.draw_foot()
        if in_pots and rng.random() < POT_SHARE:
            height, width = extent * rng.uniform((0.15, 0.15), (0.8, 0.45))
            _add_pot(photo, foot, height, width)
            foot = foot - np.array([0, height - 0.15 * extent])
        centre = foot - np.array([0, extent / 2])
        paste(rng, donor, mask, [photo.image], [photo.soft], extent=extent / side, centre=centre)


def _add_pot(photo: Photo, foot: Points, height: float, width: float) -> None:
    """Draw a pot that stands at ``foot``, lit from one side; its extents are in pixels."""
    rng, base = photo.rng, photo.rng.uniform(0.6, 1) * width / 2
    (area,) = photo.areas(1)
    corners = foot + np.array([(-base, 0), (base, 0), (width / 2, -height), (-width / 2, -height)])
    cv2.fillConvexPoly(area, np.rint(corners).astype(np.int32), 255, cv2.LINE_AA)
    across = (np.arange(photo.side)[None, :, None] - foot[0]) / width
    colour = photo.draw_colour()
    light = 1 + rng.uniform(-0.8, 0.8) * across.clip(-0.5, 0.5)
    blend(photo.image, area, colour * light)
    photo.label(area, PLANT)


def _add_railing(photo: Photo, panel: _Panel, draw_backdrop: Callable[[], Labelled]) -> None:
    """Draw a railing or fence behind the things of a photo; all of its area is labelled fence, with what it shows."""
    rng, free = photo.rng, photo.free_of_things()
    if rng.random() < PLINTH_SHARE:
        panel = _add_plinth(photo, panel, free)
    bars, area = photo.areas(2)
    _draw_bars(rng, bars, panel)
    cv2.fillConvexPoly(area, panel.corners((0, 1), (0, 1)), 255)
    if rng.random() < BACKDROP_SHARE:
        _add_backdrop(photo, panel, draw_backdrop(), free)
    blend(photo.image, np.minimum(bars, free), photo.draw_colour())
    photo.label(np.minimum(area, free), _FENCE)


def _add_plinth(photo: Photo, panel: _Panel, free: Area) -> _Panel:
    """Draw a low wall of stones, lit from one side, where the photo is ``free``; return the panel raised onto it."""
    rng, side = photo.rng, photo.side
    raised = rng.uniform(0.15, 0.9) * min(1.0, 0.25 * side / panel.height)
    area, joints = photo.areas(2)
    panel.fill(area, (0, 1), (0, raised))
    courses, thin = np.linspace(0, raised, int(rng.integers(1, 6)) + 1), 0.015 * panel.height
    for up in courses:
        panel.stroke(joints, (0, up), (1, up), thin)
    for low, high in pairwise(courses):
        for along in np.arange(rng.uniform(0, 0.1), 1, rng.uniform(0.02, 0.3)):
            panel.stroke(joints, (along, low), (along, high), thin)
    colour = np.clip(rng.uniform(30, 200) + rng.normal(0, 15, 3), 0, 255)
    left, right = rng.uniform(0.7, 1.2, 2)
    light = np.linspace(left, right, side)[None, :, None] + rng.normal(0, 0.06, (side, side, 1))
    blend(photo.image, np.minimum(area, free), colour * light)
    blend(photo.image, np.minimum(joints, free) // 2, colour * rng.uniform(0.4, 1.2))
    photo.label(np.minimum(area, free), _WALL)
    up = raised * (panel.top - panel.bottom)
    return panel._replace(bottom=panel.bottom + up, top=panel.top + up)


def _add_backdrop(photo: Photo, panel: _Panel, backdrop: Labelled, free: Area) -> None:
    """Show a part of another view behind and above a panel, where the photo is ``free``."""
    (area,) = photo.areas(1)
    cv2.fillConvexPoly(area, panel.corners((0, 1), (0, 1 + photo.rng.uniform(0, 1.5))), 255)
    area = np.minimum(area, free)
    blend(photo.image, area, backdrop[0])
    cells = cv2.resize(area, photo.soft.shape[1::-1], interpolation=cv2.INTER_AREA) > 127
    photo.soft[cells] = backdrop[1][cells]


def _add_door(photo: Photo) -> None:
    """Draw a door behind the things of a photo: one or two leaves of glass, or of wood with panels or panes."""
    rng, image = photo.rng, photo.image
    panel = photo.draw_panel(DOOR_HEIGHT, (0.35, 0.9))
    leaves = 2 if panel.width > 0.6 * panel.height else 1
    is_glass, thin = rng.random() < 0.5, rng.uniform(0.008, 0.03) * panel.height
    area, glass, frame, inset = photo.areas(4)
    panel.fill(area, (0, 1), (0, 1))
    edges = [0.05, *np.sort(rng.uniform(0.05, 0.95, int(rng.integers(0, 3)))), 0.95]
    for leaf in range(leaves):
        first, last = leaf / leaves, (leaf + 1) / leaves
        panel.outline(frame, (first, last), (0, 1), thin)
        margin = 0.14 * (last - first)
        for low, high in pairwise(edges):
            if high - low > 0.15:
                inner = (first + margin, last - margin), (low + 0.02, high - 0.02)
                panel.outline(inset, *inner, 0.6 * thin)
                if rng.random() < 0.5:
                    panel.fill(glass, *inner, int(rng.integers(120, 256)))
        edge = first + 0.1 * (last - first) if leaf else last - 0.1 * (last - first)
        panel.stroke(inset, (edge, 0.42), (edge, rng.uniform(0.43, 0.6)), thin)
    free = photo.free_of_things()
    shade = np.linspace(rng.uniform(0.6, 1.4), 1, photo.side)[:, None, None]
    opacity = rng.uniform(0.3, 0.9) if is_glass else 1
    blend(image, as_bytes(np.minimum(area, free) * opacity), photo.draw_colour() * shade)
    if not is_glass:
        blend(image, np.minimum(glass, free), rng.uniform(60, 255) * shade + rng.normal(0, 8, 3))
        blend(image, np.minimum(inset, free) // 2, photo.draw_colour())
    blend(image, np.minimum(frame, free), photo.draw_colour())
    photo.label(np.minimum(area, free), _DOOR)


def _add_seats(photo: Photo, draw_backdrop: Callable[[], Labelled]) -> None:
    """Draw a row of seats as in waiting rooms: backs with slats, seats, armrests, and legs under a beam."""
    rng, image, count = photo.rng, photo.image, int(photo.rng.integers(2, 7))
    panel = photo.draw_panel(SEATS_HEIGHT, (0.4 * count, 0.9 * count))
    if rng.random() < BEHIND_SEATS:
        _add_railing(photo, panel.behind(rng), draw_backdrop)
    seat_up, gap = rng.uniform(0.35, 0.5), rng.uniform(0.01, 0.12)
    frame, backs, slats, seats, area = photo.areas(5)
    thin = 0.04 * panel.height
    for along in np.linspace(0.1, 0.9, max(2, count // 2)):
        panel.stroke(frame, (along, 0), (along, seat_up), thin)
    panel.stroke(frame, (0, seat_up - 0.05), (1, seat_up - 0.05), thin)
    is_rounded, slat_ups = rng.random() < 0.5, np.linspace(seat_up, 1, int(rng.integers(2, 9)))
    for number in range(count):
        first, last = (number + gap) / count, (number + 1 - gap) / count
        panel.fill(backs, (first, last), (seat_up, 0.9 if is_rounded else 1))
        if is_rounded:
            inset = 0.25 * (last - first)
            panel.fill(backs, (first + inset, last - inset), (0.85, 1))
        for up in slat_ups[1:-1]:
            panel.stroke(slats, (first, up), (last, up), 0.3 * thin)
        panel.fill(seats, (first, last), (seat_up - 0.12, seat_up))
        panel.stroke(frame, (number / count, seat_up), (number / count, seat_up + 0.2), thin)
    colour = photo.draw_colour()
    shade = np.linspace(rng.uniform(0.6, 1.4), 1, photo.side)[:, None, None]
    blend(image, backs, colour * shade)
    blend(image, np.minimum(slats, backs), colour * rng.uniform(0.5, 1.2))
    blend(image, seats, colour * rng.uniform(0.6, 1.5))
    blend(image, frame, photo.draw_colour())
    cv2.fillConvexPoly(area, panel.corners((0, 1), (seat_up - 0.12, 0.95)), 255)
    photo.label(np.maximum.reduce([area, backs, frame]), _CHAIR)


def _draw_bars(rng: np.random.Generator, area: Area, panel: _Panel) -> None:
    """Draw bars, rails, wire mesh or boards between posts and two beams into ``area``."""
    height, width = panel.height, panel.width
    spacing = height * log_uniform(rng, (0.03, 0.2))
    thickness = spacing * rng.uniform(0.12, 0.45)
    count = max(2, round(width / spacing))
    kind = rng.choice(("bars", "rails", "mesh", "boards"), p=(0.6, 0.15, 0.1, 0.15))
    if kind == "rails":
        for up in np.linspace(0, 1, int(rng.integers(3, 9))):
            panel.stroke(area, (0, up), (1, up), thickness)
    elif kind == "mesh":
        reach = height / width
        for along in np.linspace(-reach, 1, count + 1):
            first, last = max(along, 0.0), min(along + reach, 1.0)
            low, high = (first - along) / reach, (last - along) / reach
            panel.stroke(area, (first, low), (last, high), thickness / 2)
            panel.stroke(area, (first, 1 - low), (last, 1 - high), thickness / 2)
    else:
        for along in np.linspace(0, 1, count + 1):
            panel.stroke(area, (along, 0), (along, 1), spacing * 0.7 if kind == "boards" else thickness)
    beam = max(thickness, height * rng.uniform(0.02, 0.06))
    for up in (1.0, rng.uniform(0, 0.15)):
        panel.stroke(area, (0, up), (1, up), beam)
    for along in np.arange(0, 1.001, rng.uniform(0.1, 0.5)):
        panel.stroke(area, (along, 0), (along, 1), beam)


def _add_pole(photo: Photo) -> None:
    """Draw a pole, at times with an arm; it counts as a label's class where it fills a quarter of the cell."""
    rng, foot = photo.rng, photo.draw_foot()
    height = photo.side * log_uniform(rng, POLE_HEIGHT)
    width = max(1.2, height * log_uniform(rng, (0.012, 0.06)))
    top = foot - np.array([rng.normal(0, 0.015) * height, height])
    area, lit = photo.areas(2)
    _draw_line(area, foot, top, width)
    if rng.random() < 0.3:
        arm = rng.choice((-1, 1)) * height * rng.uniform(0.1, 0.4)
        _draw_line(area, top, top + np.array([arm, -0.1 * abs(arm)]), max(1.0, 0.6 * width))
    colour = photo.draw_colour()
    blend(photo.image, area, colour)
    if width > 3:  # light from one side
        shift = np.array([rng.choice((-0.25, 0.25)) * width, 0])
        _draw_line(lit, foot + shift, top + shift, 0.4 * width)
        blend(photo.image, np.minimum(lit, area) // 2, colour + rng.uniform(20, 90))
    photo.label(area, _POLE, gain=2.0)


def _draw_line(area: Area, start: Points, end: Points, thickness: float) -> None:
    """Draw an anti-aliased line into ``area``; below 1 px it gets fainter, not thinner."""
    first, last = (np.rint(p * (1 << _SUBPIXEL_BITS)).astype(int).tolist() for p in (start, end))
    strength = round(255 * min(1.0, max(0.35, thickness)))
    line = np.zeros_like(area) if strength < 255 else area
    cv2.line(line, first, last, strength, max(1, round(thickness)), cv2.LINE_AA, _SUBPIXEL_BITS)
    np.maximum(area, line, out=area)

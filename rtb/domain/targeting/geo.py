"""Great-circle distances, and the grid cells that stand for circles in the index."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import cos, sin

from msgspec import Struct

from rtb.domain.campaign import Circle

EARTH_KM = 6371.0
FAR = -1  # the cell of circles too large for the coarsest grid: every point has it

_GRIDS = (4.0, 0.5)  # cells a degree: of a quarter of a degree, and of two
_MOST_CELLS = 16
_RADIAN = math.pi / 180
_HALF_RADIAN = math.pi / 360
_SLACK = 1e-7  # degrees: far more than rounding, far less than a cell


def distance_km(lat: float, lon: float, lat2: float, lon2: float) -> float:
    """Kilometres along the great circle on a sphere of 6371 km (haversine); arguments in degrees."""
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(_haversine(lat, lon, lat2, lon2))))


def inside(circles: tuple[Circle, ...], lat: float, lon: float) -> bool:
    """Whether the point lies in one of the circles, edge included."""
    for circle in circles:  # not any(), and no arcs: this is on the way of every request in a big city
        if _haversine(lat, lon, circle.lat, circle.lon) <= sin(circle.radius / (2 * EARTH_KM)) ** 2:
            return True
    return False


class Around(Struct, frozen=True, gc=False):
    """A circle with what does not differ from one request to the next: the cosine of its latitude, the square of the
    sine of half its radius, and degrees of latitude that no point in it is away from its middle."""

    lat: float
    lon: float
    cosine: float
    reach: float
    tall: float


def around(circles: Sequence[Circle]) -> Sequence[Around]:
    """Circles, to be asked often."""
    return [
        Around(
            circle.lat,
            circle.lon,
            cos(circle.lat * _RADIAN),
            sin(circle.radius / (2 * EARTH_KM)) ** 2,
            math.degrees(circle.radius / EARTH_KM) + _SLACK,
        )
        for circle in circles
    ]


def within(circles: Sequence[Around], lat: float, lon: float) -> bool:
    """As `inside`, to the last bit."""
    for circle in circles:
        away = circle.lat - lat
        if -circle.tall <= away <= circle.tall:
            along, across = sin(away * _HALF_RADIAN), sin((circle.lon - lon) * _HALF_RADIAN)
            if along * along + cos(lat * _RADIAN) * circle.cosine * across * across <= circle.reach:
                return True
    return False


def _haversine(lat: float, lon: float, lat2: float, lon2: float) -> float:
    """The square of the sine of half the arc."""
    along = sin((lat2 - lat) * _HALF_RADIAN)
    across = sin((lon2 - lon) * _HALF_RADIAN)
    return along * along + cos(lat * _RADIAN) * cos(lat2 * _RADIAN) * across * across


def cell_of_point(lat: float, lon: float) -> int:
    """The finest cell a point lies in."""
    return int((lat + 90.0) * 4.0) << 12 | int((lon + 180.0) * 4.0) % 1440


def cells_around(cell: int) -> tuple[int, ...]:
    """A finest cell, the coarser one it lies in, and `FAR`: circles with points in it may be known by any of them."""
    row, column = cell >> 12, cell & 0xFFF
    return cell, 1 << 24 | row // 8 << 12 | column // 8, FAR


def cells_of_circle(circle: Circle) -> list[int]:
    """Cells of the finest grid that covers the circle with few; every point inside has one of them."""
    reach = circle.radius / EARTH_KM
    tall = math.degrees(reach) + _SLACK
    south, north = max(-90.0, circle.lat - tall), min(90.0, circle.lat + tall)
    if south <= -90.0 or north >= 90.0:  # a pole is inside: all longitudes
        return [FAR]
    # the meridians that touch the circle: sin(dlon) = sin(reach) / cos(lat)
    wide = math.degrees(math.asin(min(1.0, math.sin(reach) / math.cos(math.radians(circle.lat))))) + _SLACK
    west, east = circle.lon - wide + 180.0, circle.lon + wide + 180.0  # may pass the antimeridian
    for level, grid in enumerate(_GRIDS):
        rows = range(math.floor((south + 90.0) * grid), math.floor((north + 90.0) * grid) + 1)
        columns = range(math.floor(west * grid), math.floor(east * grid) + 1)
        if len(rows) * len(columns) <= _MOST_CELLS:
            around = int(360 * grid)
            return [level << 24 | row << 12 | column % around for row in rows for column in columns]
    return [FAR]

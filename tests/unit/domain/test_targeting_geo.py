"""Distances, and grid cells against brute force."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.domain.campaign import Circle
from rtb.domain.targeting import distance_km
from rtb.domain.targeting.geo import FAR, cell_of_point, cells_around, cells_of_circle


@pytest.mark.parametrize(
    ("one", "other", "km"),
    [
        ((0.0, 0.0), (0.0, 90.0), 6371 * math.pi / 2),  # a quarter of the equator
        ((90.0, 0.0), (-90.0, 77.0), 6371 * math.pi),  # pole to pole
        ((10.0, 179.5), (10.0, -179.5), 109.5051),  # a degree of the 10th parallel, over the antimeridian
        ((37.0, 127.0), (38.0, 127.0), 6371 * math.pi / 180),  # a degree of a meridian
        ((60.0, 0.0), (60.0, 180.0), 6371 * math.pi / 3),  # over the pole: 30 + 30 degrees
        ((51.5, -0.1), (51.5, -0.1), 0.0),
    ],
)
def test_known_distances(one: tuple[float, float], other: tuple[float, float], km: float) -> None:
    """On a sphere of 6371 km, worked out by hand (parallel: 2 R asin(cos 10 sin 0.5 degrees))."""
    assert distance_km(*one, *other) == pytest.approx(km, abs=1e-3)
    assert distance_km(*other, *one) == pytest.approx(km, abs=1e-3)


@given(
    lat=st.floats(-90, 90),
    lon=st.floats(-180, 180),
    radius=st.one_of(st.floats(0.01, 100), st.floats(0.01, 20_040)),
    bearing=st.floats(0, 2 * math.pi),
    part=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_every_point_inside_a_circle_has_one_of_its_cells(
    lat: float, lon: float, radius: float, bearing: float, part: float
) -> None:
    """Any centre, poles and antimeridian too; points out to the very edge."""
    circle = Circle(lat=lat, lon=lon, radius=radius)
    phi, reach = math.radians(lat), radius * part / 6371
    sine = math.sin(phi) * math.cos(reach) + math.cos(phi) * math.sin(reach) * math.cos(bearing)
    lat2 = math.asin(max(-1.0, min(1.0, sine)))
    lon2 = math.radians(lon) + math.atan2(
        math.sin(bearing) * math.sin(reach) * math.cos(phi), math.cos(reach) - math.sin(phi) * math.sin(lat2)
    )
    degrees = (math.degrees(lon2) + 540) % 360 - 180
    if distance_km(lat, lon, math.degrees(lat2), degrees) <= radius:
        assert set(cells_of_circle(circle)) & set(cells_around(cell_of_point(math.degrees(lat2), degrees)))


def test_small_circles_take_few_fine_cells_and_huge_ones_none() -> None:
    """10 km in Seoul lie in at most four cells of a quarter of a degree; half the world is checked exactly."""
    assert 1 <= len(cells_of_circle(Circle(lat=37.5665, lon=126.978))) <= 4
    assert cells_of_circle(Circle(lat=0.0, lon=0.0, radius=10_000.0)) == [FAR]
    assert cells_of_circle(Circle(lat=89.99, lon=0.0)) == [FAR]

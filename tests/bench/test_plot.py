"""The picture is well-formed and shows what was measured."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from bench.measure import Series
from bench.plot import MOST_DOTS, Scale, strips

SVG = "{http://www.w3.org/2000/svg}"
PANELS = {
    "burst": [
        Series("bwrap", [4_000_000, 5_000_000, 6_000_000]),
        Series("immured <&>", [2_000_000, 2_500_000, 3_000_000]),
    ],
    "sporadic": [Series("bwrap", [7_000_000] * 1000)],
}


@pytest.fixture(scope="module")
def picture() -> ET.Element:
    return ET.fromstring(strips(PANELS, "bwrap"))


def texts(picture: ET.Element) -> list[str]:
    return [text.text or "" for text in picture.iter(f"{SVG}text")]


def test_every_subject_is_named_with_its_median_and_ratio(picture: ET.Element) -> None:
    said = texts(picture)
    assert {"bwrap", "immured <&>"} <= set(said)
    assert "2.50 ms   0.50 x" in said
    assert "5.00 ms   1.00 x" in said


def test_every_scenario_has_its_panel(picture: ET.Element) -> None:
    assert {"burst: milliseconds a run", "sporadic: milliseconds a run"} <= set(texts(picture))


def test_a_dot_for_each_run_and_not_too_many(picture: ET.Element) -> None:
    strip_dots = [len(list(group)) for group in picture.iter(f"{SVG}g")]
    assert strip_dots[:2] == [3, 3]
    assert strip_dots[2] <= MOST_DOTS


def test_everything_is_inside_the_picture(picture: ET.Element) -> None:
    width, height = float(picture.attrib["width"]), float(picture.attrib["height"])
    for circle in picture.iter(f"{SVG}circle"):
        assert 0 <= float(circle.attrib["cx"]) <= width
        assert 0 <= float(circle.attrib["cy"]) <= height


def test_twice_as_long_is_as_far_everywhere() -> None:
    scale = Scale.over([1.0, 64.0])
    assert scale.place(4) - scale.place(2) == pytest.approx(scale.place(32) - scale.place(16))


def test_ticks_are_round_and_within() -> None:
    assert Scale(0.9, 30).ticks() == pytest.approx([1, 2, 5, 10, 20])


def test_samples_that_are_all_the_same_have_a_scale() -> None:
    assert Scale.over([7.0]).ticks()


def test_the_same_samples_make_the_same_picture() -> None:
    assert strips(PANELS, "bwrap") == strips(PANELS, "bwrap")

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lit_mtdqn.analysis.panels import COLOURS, LOOKS

Array = np.ndarray
# CIE76 in Lab; 2.3 is just noticeable side by side, thin lines apart need much more.
TOLD_APART = 30.0
LEGIBLE = 3.0  # contrast to white that WCAG 2.1 asks of graphics
# Machado, Oliveira and Fernandes 2009, severity 1.0, for linear RGB.
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
RGB_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def linear(colour: str) -> Array:
    encoded = np.array(list(bytes.fromhex(colour[1:]))) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def lab(rgb: Array) -> Array:
    ratios = RGB_TO_XYZ @ rgb.clip(0, 1) / RGB_TO_XYZ.sum(1)
    x, y, z = np.where(ratios > 216 / 24389, np.cbrt(ratios), (24389 / 27 * ratios + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one: str, other: str, sight: str) -> float:
    first, second = (lab(SIGHTS[sight] @ linear(colour)) for colour in (one, other))
    return float(np.linalg.norm(first - second))


@pytest.mark.parametrize("sight", SIGHTS)
def test_methods_are_told_apart_by_colour_or_by_dashes(sight: str) -> None:
    for one, other in itertools.combinations(LOOKS, 2):
        if one.style == other.style:
            assert distance(one.colour, other.colour, sight) > TOLD_APART, (one, other)


@pytest.mark.parametrize("sight", SIGHTS)
def test_the_first_four_colours_are_told_apart_without_dashes(sight: str) -> None:
    for one, other in itertools.combinations(COLOURS[:4], 2):
        assert distance(one, other, sight) > TOLD_APART, (one, other)


def test_colours_that_only_good_eyes_tell_apart_are_found() -> None:
    assert distance("#ff0000", "#808000", "normal") > TOLD_APART
    assert distance("#d55e00", "#b07d00", "deuteranopia") < TOLD_APART


def test_every_colour_is_legible_on_white() -> None:
    luminances = [RGB_TO_XYZ[1] @ linear(colour) for colour in COLOURS]
    assert all(1.05 / (luminance + 0.05) > LEGIBLE for luminance in luminances)

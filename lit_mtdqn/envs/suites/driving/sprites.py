"""Things on the road: car, pedestrian, traffic light and trees."""

import math

import numpy as np
from PIL import ImageDraw

from lit_mtdqn.envs.suites.driving.camera import PIXELS_PER_METER, LaneCamera, Polygon
from lit_mtdqn.envs.suites.driving.dynamics import CAR_LENGTH, CAR_WIDTH, WHEELBASE

Point = tuple[float, float]
Color = tuple[int, ...]

SHADOW = (20, 30, 25, 80)
CAR_RED, CAR_DARK, GLASS = (214, 58, 54), (168, 38, 40), (38, 50, 66)
TIRE, HEADLIGHT, BRAKE_LIGHT = (28, 28, 32), (255, 246, 200), (255, 40, 30)
SKIN, HAIR, COAT, TROUSERS = (236, 188, 150), (74, 48, 32), (246, 178, 30), (44, 62, 110)
LAMPS = {"green": (60, 224, 112), "yellow": (255, 204, 44), "red": (255, 66, 56)}
LAMP_OFF, HOUSING = (62, 64, 70), (30, 32, 38)
LEAVES = ((62, 122, 62), (78, 142, 70), (96, 160, 80))


def disc(draw: ImageDraw.ImageDraw, center: Point, radius: float, color: Color) -> None:
    """Fills a circle of `radius` m at a pixel."""
    reach = radius * PIXELS_PER_METER
    x, y = center
    draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=color)


def turned(center: Point, heading: float, points: list[Point]) -> Polygon:
    """Returns `points`, in m forward and to the left, as pixels around a pixel."""
    forward, left = np.array(points).T * PIXELS_PER_METER
    x = center[0] + forward * math.cos(heading) - left * math.sin(heading)
    y = center[1] - forward * math.sin(heading) - left * math.cos(heading)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def box(rear: float, front: float, right: float, left: float, cut: float = 0.0) -> list[Point]:
    """Returns the corners of a box in m, with corners cut off by `cut` m."""
    return [
        (rear + cut, right), (front - cut, right), (front, right + cut), (front, left - cut),
        (front - cut, left), (rear + cut, left), (rear, left - cut), (rear, right + cut),
    ]  # fmt: skip


def draw_car(
    draw: ImageDraw.ImageDraw, center: Point, heading: float, steering: float, braking: bool
) -> None:
    """Draws the car with its wheels steered by `steering` rad and its brake lights."""
    half, side = CAR_LENGTH / 2, CAR_WIDTH / 2

    def fill(points: list[Point], color: Color, shift: float = 0.0) -> None:
        spot = (center[0] + shift, center[1] + shift)
        draw.polygon(turned(spot, heading, points), fill=color)

    fill(box(-half, half, -side, side, 0.4), SHADOW, shift=0.3 * PIXELS_PER_METER)
    for wheel_side in (-side, side):
        rear = turned(center, heading, [(-WHEELBASE / 2, wheel_side)])[0]
        front = turned(center, heading, [(WHEELBASE / 2, wheel_side)])[0]
        wheel = box(-0.38, 0.38, -0.16, 0.16)
        draw.polygon(turned(rear, heading, wheel), fill=TIRE)
        draw.polygon(turned(front, heading + 2 * steering, wheel), fill=TIRE)
    fill(box(-half, half, -side, side, 0.4), CAR_DARK)
    fill(box(-half + 0.08, half - 0.08, -side + 0.1, side - 0.1, 0.36), CAR_RED)
    fill(box(-1.5, 0.95, -side + 0.2, side - 0.2, 0.3), GLASS)
    fill(box(-1.0, 0.3, -side + 0.26, side - 0.26, 0.12), CAR_RED)
    for lamp in (-0.62, 0.62):
        fill(box(half - 0.3, half - 0.04, lamp - 0.2, lamp + 0.2, 0.08), HEADLIGHT)
        rear_color = BRAKE_LIGHT if braking else CAR_DARK
        fill(box(-half + 0.02, -half + 0.24, lamp - 0.24, lamp + 0.24, 0.06), rear_color)
        if braking:
            disc(draw, turned(center, heading, [(-half, lamp)])[0], 0.55, (*BRAKE_LIGHT, 80))


def draw_pedestrian(
    draw: ImageDraw.ImageDraw, center: Point, heading: float, walked: float
) -> None:
    """Draws a pedestrian that faces `heading` and has walked `walked` m."""
    stride = 0.42 * math.sin(4.0 * walked)
    shadow = (center[0] + 5.0, center[1] + 5.0)
    disc(draw, shadow, 0.62, SHADOW)
    for side, step in ((0.22, stride), (-0.22, -stride)):
        leg = box(step - 0.3, step + 0.3, side - 0.15, side + 0.15, 0.1)
        draw.polygon(turned(center, heading, leg), fill=TROUSERS)
        arm = box(-step - 0.12, -step + 0.26, 2.6 * side - 0.12, 2.6 * side + 0.12, 0.1)
        draw.polygon(turned(center, heading, arm), fill=SKIN)
    draw.polygon(turned(center, heading, box(-0.32, 0.32, -0.62, 0.62, 0.28)), fill=COAT)
    disc(draw, center, 0.36, HAIR)
    disc(draw, turned(center, heading, [(0.12, 0.0)])[0], 0.28, SKIN)
    disc(draw, turned(center, heading, [(-0.08, 0.0)])[0], 0.29, HAIR)


def draw_light(draw: ImageDraw.ImageDraw, foot: Point, lit: str) -> None:
    """Draws an upright traffic light whose post stands at the pixel `foot`."""
    x, y = foot
    unit = PIXELS_PER_METER
    draw.line((x, y, x, y - 1.2 * unit), fill=HOUSING, width=round(0.3 * unit))
    top, bottom = y - 5.0 * unit, y - 0.9 * unit
    frame = (x - 0.85 * unit, top, x + 0.85 * unit, bottom)
    draw.rounded_rectangle(frame, 0.45 * unit, fill=HOUSING, outline=(235, 235, 235), width=2)
    for place, name in enumerate(("red", "yellow", "green")):
        lamp = (x, top + (0.85 + 1.2 * place) * unit)
        if name == lit:
            disc(draw, lamp, 1.5, (*LAMPS[name], 60))
            disc(draw, lamp, 1.0, (*LAMPS[name], 90))
        disc(draw, lamp, 0.5, LAMPS[name] if name == lit else LAMP_OFF)


def draw_trees(draw: ImageDraw.ImageDraw, camera: LaneCamera) -> None:
    """Draws trees and bushes that stand still in the world on both sides of the road."""
    for index in range(math.ceil(camera.near / 4.0), math.floor(camera.far / 4.0)):
        for side in (-1, 1):
            scatter = (0.618034 * index + 0.37 * side) % 1.0
            if scatter < 0.3:
                continue
            radius = 0.8 + 1.3 * ((7.31 * scatter) % 1.0)
            spot = camera.pixel(4.0 * index + 3.0 * scatter, side * (8.3 + radius + 5.0 * scatter))
            disc(draw, (spot[0] + 8.0, spot[1] + 8.0), radius, SHADOW)
            for leaf, shrink in zip(LEAVES, (1.0, 0.72, 0.4), strict=True):
                lift = (1.0 - shrink) * 0.35 * radius * PIXELS_PER_METER
                disc(draw, (spot[0] - lift, spot[1] - lift), shrink * radius, leaf)

"""Things on the road: car, pedestrian, traffic light and trees."""

import math

from PIL import ImageDraw

from lit_mtdqn.envs.suites.driving.camera import PIXELS_PER_METER, LaneCamera
from lit_mtdqn.envs.suites.driving.dynamics import CAR_LENGTH, CAR_WIDTH, WHEELBASE

Point = tuple[float, float]
Color = tuple[int, ...]

SHADOW, SHADOW_SHIFT = (20, 30, 25, 80), 0.3 * PIXELS_PER_METER
CAR_RED, CAR_DARK, GLASS = (214, 58, 54), (168, 38, 40), (38, 50, 66)
TIRE, HEADLIGHT, BRAKE_LIGHT = (28, 28, 32), (255, 246, 200), (255, 40, 30)
SKIN, HAIR, COAT, TROUSERS = (236, 188, 150), (74, 48, 32), (255, 190, 30), (44, 62, 110)
LAMPS = {"green": (60, 224, 112), "yellow": (255, 204, 44), "red": (255, 66, 56)}
LAMP_OFF, HOUSING, RIM = (62, 64, 70), (30, 32, 38), (235, 235, 235)
LEAVES = ((62, 122, 62), (78, 142, 70), (96, 160, 80))
PEDESTRIAN_SCALE = 1.35  # drawn larger than life, to be seen
STRIDE, STEPS_PER_METER = 0.42, 4.0 / (2 * math.pi)
TREE_SPACING = 4.0  # m


class Figure:
    """Draws shapes given in m forward and to the left of a pixel.

    Args:
        draw: Canvas.
        center: Pixel of the origin.
        heading: Direction of forward in rad, anticlockwise from the right.
        scale: Magnification.
    """

    def __init__(
        self, draw: ImageDraw.ImageDraw, center: Point, heading: float = 0.0, scale: float = 1.0
    ) -> None:
        self.draw, self.center, self.heading = draw, center, heading
        self.unit = scale * PIXELS_PER_METER

    def pixel(self, forward: float, left: float) -> Point:
        """Return the pixel of a point."""
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        x = self.center[0] + self.unit * (forward * cos - left * sin)
        y = self.center[1] - self.unit * (forward * sin + left * cos)
        return x, y

    def box(self, middle: Point, length: float, width: float, cut: float, color: Color) -> None:
        """Fill a box around a point, with corners cut off by `cut`."""
        long, wide = length / 2, width / 2
        corner = ((long - cut, wide), (long, wide - cut), (long, cut - wide), (long - cut, -wide))
        points = [*corner, *((-forward, -left) for forward, left in corner)]
        pixels = [self.pixel(middle[0] + forward, middle[1] + left) for forward, left in points]
        self.draw.polygon(pixels, fill=color)

    def disc(self, middle: Point, radius: float, color: Color) -> None:
        """Fill a circle around a point."""
        (x, y), reach = self.pixel(*middle), radius * self.unit
        self.draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=color)

    def shadow(self) -> "Figure":
        """Return a copy where the shadow falls."""
        x, y = self.center
        spot = (x + SHADOW_SHIFT, y + SHADOW_SHIFT)
        return Figure(self.draw, spot, self.heading, self.unit / PIXELS_PER_METER)


def draw_car(figure: Figure, steering: float, braking: bool) -> None:
    """Draw the car with its front wheels turned by `steering` rad and its brake lights."""
    figure.shadow().box((0.0, 0.0), CAR_LENGTH, CAR_WIDTH, 0.4, SHADOW)
    for side in (-CAR_WIDTH / 2, CAR_WIDTH / 2):
        for axle, turn in ((-WHEELBASE / 2, 0.0), (WHEELBASE / 2, 2 * steering)):
            wheel = Figure(figure.draw, figure.pixel(axle, side), figure.heading + turn)
            wheel.box((0.0, 0.0), 0.76, 0.32, 0.0, TIRE)
    figure.box((0.0, 0.0), CAR_LENGTH, CAR_WIDTH, 0.4, CAR_DARK)
    figure.box((0.0, 0.0), CAR_LENGTH - 0.16, CAR_WIDTH - 0.2, 0.36, CAR_RED)
    figure.box((-0.28, 0.0), 2.45, CAR_WIDTH - 0.4, 0.3, GLASS)
    figure.box((-0.35, 0.0), 1.3, CAR_WIDTH - 0.52, 0.12, CAR_RED)
    for side in (-0.62, 0.62):
        figure.box((1.83, side), 0.26, 0.4, 0.08, HEADLIGHT)
        figure.box((-1.87, side), 0.22, 0.48, 0.06, BRAKE_LIGHT if braking else CAR_DARK)
        if braking:
            figure.disc((-2.0, side), 0.55, (*BRAKE_LIGHT, 80))


def draw_pedestrian(figure: Figure, walked: float) -> None:
    """Draw a pedestrian who has walked `walked` m."""
    step = STRIDE * math.sin(2 * math.pi * STEPS_PER_METER * walked)
    figure.shadow().disc((0.0, 0.0), 0.6, SHADOW)
    for side, swing in ((1, step), (-1, -step)):
        figure.box((swing, 0.22 * side), 0.6, 0.3, 0.1, TROUSERS)
        figure.box((0.07 - swing, 0.57 * side), 0.38, 0.24, 0.1, SKIN)
    figure.box((0.0, 0.0), 0.64, 1.24, 0.28, COAT)
    figure.disc((0.12, 0.0), 0.28, SKIN)
    figure.disc((-0.03, 0.0), 0.32, HAIR)


def draw_light(draw: ImageDraw.ImageDraw, foot: Point, lit: str) -> None:
    """Draw an upright traffic light whose post stands at the pixel `foot`."""
    figure = Figure(draw, foot, heading=math.pi / 2)
    figure.box((0.6, 0.0), 1.2, 0.3, 0.0, HOUSING)
    left, top = figure.pixel(5.0, 0.85)
    right, bottom = figure.pixel(0.9, -0.85)
    frame = (left, top, right, bottom)
    draw.rounded_rectangle(frame, 0.45 * figure.unit, fill=HOUSING, outline=RIM, width=2)
    for height, (name, color) in zip((1.75, 2.95, 4.15), LAMPS.items(), strict=True):
        if name == lit:
            figure.disc((height, 0.0), 1.5, (*color, 60))
            figure.disc((height, 0.0), 1.0, (*color, 90))
        figure.disc((height, 0.0), 0.5, color if name == lit else LAMP_OFF)


def draw_trees(draw: ImageDraw.ImageDraw, camera: LaneCamera) -> None:
    """Draw trees and bushes that stand still in the world on both sides of the road."""
    golden = (math.sqrt(5) - 1) / 2
    first, last = math.ceil(camera.near / TREE_SPACING), math.floor(camera.far / TREE_SPACING)
    for index in range(first, last):
        for side in (-1, 1):
            scatter = (golden * index + 0.37 * side) % 1.0
            if scatter > 0.3:
                radius = 0.8 + 1.3 * ((7.31 * scatter) % 1.0)
                along = TREE_SPACING * index + 3.0 * scatter
                spot = camera.pixel(along, side * (8.3 + radius + 5.0 * scatter))
                _draw_tree(Figure(draw, spot), radius)


def _draw_tree(figure: Figure, radius: float) -> None:
    figure.shadow().disc((0.1, -0.1), radius, SHADOW)
    for leaf, shrink in zip(LEAVES, (1.0, 0.72, 0.4), strict=True):
        lift = (1.0 - shrink) * 0.35 * radius
        figure.disc((-lift, lift), shrink * radius, leaf)

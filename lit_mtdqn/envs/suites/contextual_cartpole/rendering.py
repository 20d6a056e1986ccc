"""Pictures of the cart and the pole."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lit_mtdqn.envs.suites.contextual_cartpole.dynamics import MAX_POSITION

WIDTH, HEIGHT = 480, 320  # px
SCALE = WIDTH / (2 * MAX_POSITION)  # px/m
TRACK = 260  # px from the top
CART = (40, 24)  # px
POLE_WIDTH = 8  # px
WHITE, BLACK, WOOD, AXLE = (255, 255, 255), (30, 30, 30), (202, 152, 101), (129, 132, 203)


def render_frame(position: float, angle: float, length: float) -> NDArray[np.uint8]:
    """Return a picture, uint8 [320, 480, 3].

    Args:
        position: m from the middle, right positive.
        angle: rad from upright, clockwise positive.
        length: m, half of the pole's; a longer one reaches out of the picture.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), WHITE)
    draw = ImageDraw.Draw(image)
    draw.line([(0, TRACK), (WIDTH, TRACK)], BLACK)
    x = WIDTH / 2 + SCALE * position
    half_width, half_height = CART[0] / 2, CART[1] / 2
    corners = [(x - half_width, TRACK - half_height), (x + half_width, TRACK + half_height)]
    draw.rectangle(corners, BLACK)
    reach = 2 * length * SCALE
    tip = (x + reach * np.sin(angle), TRACK - reach * np.cos(angle))
    draw.line([(x, TRACK), tip], WOOD, POLE_WIDTH)
    radius = POLE_WIDTH / 2
    draw.ellipse([(x - radius, TRACK - radius), (x + radius, TRACK + radius)], AXLE)
    return np.asarray(image)

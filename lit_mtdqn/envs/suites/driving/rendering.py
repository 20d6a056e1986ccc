"""Drawing of an episode from above with Pillow."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lit_mtdqn.envs.suites.driving.camera import CANVAS_SIZE, SUPERSAMPLING, LaneCamera
from lit_mtdqn.envs.suites.driving.dynamics import (
    CROSSWALK_LENGTH,
    LANE_WIDTH,
    MAX_BRAKING,
    ROAD_LENGTH,
    light_color,
    pedestrian_walk,
)
from lit_mtdqn.envs.suites.driving.outcome import (
    LEFT_LANE,
    RAN_RED,
    RUNNING,
    SUCCESS,
    TIME_UP,
    TOO_CLOSE,
)
from lit_mtdqn.envs.suites.driving.sprites import (
    HOUSING,
    LAMPS,
    PEDESTRIAN_SCALE,
    Figure,
    draw_car,
    draw_light,
    draw_pedestrian,
    draw_trees,
)
from lit_mtdqn.envs.suites.driving.states import DrivingStates
from lit_mtdqn.envs.suites.driving.tasks import DrivingTask

ROAD_EDGE = LANE_WIDTH  # m from the lane centre to the kerb
PAVEMENT_EDGE = 7.6  # m
GRASS_EDGE = 40.0  # m
KERB_WIDTH = 0.3  # m
DASH, SLAB, MOWN_LENGTH = 3.0, 2.0, 4.0  # m along the road
STRIPE, STRIPE_SPACING = 0.65, 1.2  # m across the road
GRASS, MOWN = (126, 178, 104), (134, 186, 110)
PAVEMENT, KERB, ASPHALT, PAINT = (206, 201, 192), (232, 228, 220), (78, 82, 92), (244, 244, 240)
PANEL, TEXT = (18, 22, 30, 190), (250, 250, 250)
GOOD, BAD, NEUTRAL = (36, 160, 88), (208, 48, 48), (120, 124, 134)
LIGHT_NAMES = ("green", "yellow", "red")  # in the order of the colours
PANEL_MARGIN, PANEL_SIZE, FONT_SIZE = 16, (384, 60), 30  # px of the supersampled frame
BAR_HEIGHT = 6  # px of the supersampled frame
VERDICT_HEIGHT, VERDICT_FONT_SIZE = 80, 44  # px of the supersampled frame
VERDICTS = {
    TIME_UP: ("Time is up", NEUTRAL),
    SUCCESS: ("Arrived", GOOD),
    LEFT_LANE: ("Left the lane", BAD),
    RAN_RED: ("Ran the red light", BAD),
    TOO_CLOSE: ("Too close to the pedestrian", BAD),
}


def render_frame(states: DrivingStates, task: DrivingTask, outcome: int) -> NDArray[np.uint8]:
    """Draw the first episode of a batch, uint8 [270, 480, 3]."""
    scene = DrivingStates(states.values[:, :1])
    image = Image.new("RGB", CANVAS_SIZE, GRASS)
    draw = ImageDraw.Draw(image, "RGBA")
    camera = LaneCamera(scene)
    _draw_ground(draw, camera)
    _draw_road(draw, camera)
    _draw_finish(draw, camera)
    if task.has_pedestrian:
        _draw_crosswalk(draw, camera, scene)
    if task.has_light:
        _draw_stop_line(draw, camera, scene)
    _draw_car(draw, camera, scene)
    draw_trees(draw, camera)
    _draw_caption(draw, scene, task)
    if outcome != RUNNING:
        _draw_verdict(draw, outcome)
    return np.array(image.reduce(SUPERSAMPLING))


def _draw_ground(draw: ImageDraw.ImageDraw, camera: LaneCamera) -> None:
    for band in _multiples(camera, 2 * MOWN_LENGTH):
        for side in (-1, 1):
            edges = sorted((side * PAVEMENT_EDGE, side * GRASS_EDGE))
            draw.polygon(camera.ribbon(band, band + MOWN_LENGTH, *edges), fill=MOWN)
    pavement = camera.ribbon(camera.near, camera.far, -PAVEMENT_EDGE, PAVEMENT_EDGE)
    draw.polygon(pavement, fill=PAVEMENT)
    for joint in _multiples(camera, SLAB):
        ends = [camera.pixel(joint, edge) for edge in (-PAVEMENT_EDGE, PAVEMENT_EDGE)]
        draw.line(ends, fill=KERB, width=SUPERSAMPLING)


def _draw_road(draw: ImageDraw.ImageDraw, camera: LaneCamera) -> None:
    near, far, kerb = camera.near, camera.far, ROAD_EDGE + KERB_WIDTH
    draw.polygon(camera.ribbon(near, far, -kerb, kerb), fill=KERB)
    draw.polygon(camera.ribbon(near, far, -ROAD_EDGE, ROAD_EDGE), fill=ASPHALT)
    for side in (-1, 1):
        edge, lane = side * (ROAD_EDGE - KERB_WIDTH), side * LANE_WIDTH / 2
        draw.polygon(camera.ribbon(near, far, edge - 0.08, edge + 0.08), fill=PAINT)
        for dash in _multiples(camera, 2 * DASH):
            draw.polygon(camera.ribbon(dash, dash + DASH, lane - 0.1, lane + 0.1), fill=PAINT)


def _multiples(camera: LaneCamera, spacing: float) -> list[float]:
    first, last = math.floor(camera.near / spacing), math.ceil(camera.far / spacing)
    return [spacing * index for index in range(first, last)]


def _draw_finish(draw: ImageDraw.ImageDraw, camera: LaneCamera) -> None:
    side = LANE_WIDTH / 6
    for column in range(2):
        for row in range(-6, 6):
            along, lateral = ROAD_LENGTH + column * side, row * side
            if along + side < camera.far:
                color = PAINT if (row + column) % 2 else HOUSING
                draw.polygon(
                    camera.ribbon(along, along + side, lateral, lateral + side), fill=color
                )


def _draw_crosswalk(draw: ImageDraw.ImageDraw, camera: LaneCamera, scene: DrivingStates) -> None:
    line = float(scene.line[0])
    if not camera.near < line < camera.far - CROSSWALK_LENGTH:
        return
    for stripe in np.arange(STRIPE - ROAD_EDGE, ROAD_EDGE - STRIPE, STRIPE_SPACING):
        area = camera.ribbon(line, line + CROSSWALK_LENGTH, stripe, stripe + STRIPE)
        draw.polygon(area, fill=PAINT)
    beyond_center = float(pedestrian_walk(scene)[0][0])
    direction = float(scene.walk_direction[0])
    middle = line + CROSSWALK_LENGTH / 2
    facing = camera.heading(middle) + direction * math.pi / 2
    spot = camera.pixel(middle, direction * beyond_center)
    draw_pedestrian(Figure(draw, spot, facing, PEDESTRIAN_SCALE), beyond_center)


def _draw_stop_line(draw: ImageDraw.ImageDraw, camera: LaneCamera, scene: DrivingStates) -> None:
    line = float(scene.line[0])
    if not camera.near < line < camera.far - 1.0:
        return
    lit = LIGHT_NAMES[int(light_color(scene)[0])]
    half = LANE_WIDTH / 2 - 0.15
    draw.polygon(camera.ribbon(line - 1.1, line + 1.6, -half, half), fill=(*LAMPS[lit], 90))
    draw.polygon(camera.ribbon(line, line + 0.5, -half, half), fill=PAINT)
    draw_light(draw, camera.pixel(line + 0.25, ROAD_EDGE + 1.4), lit)


def _draw_car(draw: ImageDraw.ImageDraw, camera: LaneCamera, scene: DrivingStates) -> None:
    position, offset = float(scene.position[0]), float(scene.offset[0])
    heading = camera.heading(position) + float(scene.heading[0])
    braking = bool(scene.acceleration[0] == -MAX_BRAKING)
    figure = Figure(draw, camera.pixel(position, offset), heading)
    draw_car(figure, float(scene.steering[0]), braking)


def _draw_caption(draw: ImageDraw.ImageDraw, scene: DrivingStates, task: DrivingTask) -> None:
    width, height = CANVAS_SIZE
    left, bottom = PANEL_MARGIN, height - PANEL_MARGIN
    right, top = left + PANEL_SIZE[0], bottom - PANEL_SIZE[1]
    draw.rounded_rectangle((left, top, right, bottom), PANEL_MARGIN, fill=PANEL)
    font, row = ImageFont.load_default(FONT_SIZE), (top + bottom) / 2
    draw.text((left + PANEL_MARGIN, row), task.title, TEXT, font, anchor="lm")
    speed = f"{3.6 * float(scene.speed[0]):.0f} km/h"
    draw.text((right - PANEL_MARGIN, row), speed, TEXT, font, anchor="rm")
    done = min(float(scene.position[0]) / ROAD_LENGTH, 1.0)
    draw.rectangle((0, height - BAR_HEIGHT, width, height), fill=PANEL)
    draw.rectangle((0, height - BAR_HEIGHT, done * width, height), fill=GOOD)


def _draw_verdict(draw: ImageDraw.ImageDraw, outcome: int) -> None:
    text, color = VERDICTS[outcome]
    font = ImageFont.load_default(VERDICT_FONT_SIZE)
    middle, half = CANVAS_SIZE[0] / 2, font.getlength(text) / 2 + 2 * PANEL_MARGIN
    top, bottom = PANEL_MARGIN, PANEL_MARGIN + VERDICT_HEIGHT
    panel = (middle - half, top, middle + half, bottom)
    draw.rounded_rectangle(panel, VERDICT_HEIGHT / 3, fill=(*color, 235))
    draw.text((middle, (top + bottom) / 2), text, TEXT, font, anchor="mm")

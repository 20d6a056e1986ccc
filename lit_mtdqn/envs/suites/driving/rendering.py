"""Draws an episode from above with Pillow."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lit_mtdqn.envs.suites.driving.camera import FRAME_SIZE, SUPERSAMPLING, LaneCamera
from lit_mtdqn.envs.suites.driving.dynamics import (
    CROSSWALK_LENGTH,
    LANE_WIDTH,
    ROAD_LENGTH,
    Outcome,
    light_colors,
    pedestrian_walk,
)
from lit_mtdqn.envs.suites.driving.sprites import (
    LAMPS,
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
DASH = 3.0  # m
GRASS, MOWN = (126, 178, 104), (134, 186, 110)
PAVEMENT, KERB, ASPHALT, PAINT = (206, 201, 192), (232, 228, 220), (78, 82, 92), (244, 244, 240)
PANEL, TEXT = (18, 22, 30, 190), (250, 250, 250)
GOOD, BAD, NEUTRAL = (36, 160, 88), (208, 48, 48), (120, 124, 134)
VERDICTS = {
    Outcome.TIME_UP: ("Time is up", NEUTRAL),
    Outcome.SUCCESS: ("Arrived", GOOD),
    Outcome.LEFT_LANE: ("Left the lane", BAD),
    Outcome.RAN_RED: ("Ran the red light", BAD),
    Outcome.TOO_CLOSE: ("Too close to the pedestrian", BAD),
}


def render_frame(states: DrivingStates, task: DrivingTask, outcome: Outcome) -> NDArray[np.uint8]:
    """Draws the first episode of a batch, uint8 [270, 480, 3]."""
    scene = DrivingStates(1)
    scene.values[:] = states.values[:, :1]
    image = Image.new("RGB", (FRAME_SIZE[0] * SUPERSAMPLING, FRAME_SIZE[1] * SUPERSAMPLING), GRASS)
    draw = ImageDraw.Draw(image, "RGBA")
    camera = LaneCamera(scene)
    _draw_ground(draw, camera)
    if task.has_pedestrian:
        _draw_crosswalk(draw, camera, scene)
    if task.has_light:
        _draw_stop_line(draw, camera, scene)
    _draw_car(draw, camera, scene)
    draw_trees(draw, camera)
    _draw_caption(draw, scene, task)
    if outcome != Outcome.RUNNING:
        _draw_verdict(draw, outcome)
    return np.asarray(image.reduce(SUPERSAMPLING))


def _draw_ground(draw: ImageDraw.ImageDraw, camera: LaneCamera) -> None:
    near, far = camera.near, camera.far
    for band in _multiples(camera, 8.0):
        for side in (-1, 1):
            edges = sorted((side * PAVEMENT_EDGE, side * GRASS_EDGE))
            draw.polygon(camera.ribbon(band, band + 4.0, *edges), fill=MOWN)
    draw.polygon(camera.ribbon(near, far, -PAVEMENT_EDGE, PAVEMENT_EDGE), fill=PAVEMENT)
    for joint in _multiples(camera, 2.0):
        draw.line(camera.pixels([joint, joint], [-PAVEMENT_EDGE, PAVEMENT_EDGE]), fill=KERB, width=2)
    kerb = ROAD_EDGE + 0.3
    draw.polygon(camera.ribbon(near, far, -kerb, kerb), fill=KERB)
    draw.polygon(camera.ribbon(near, far, -ROAD_EDGE, ROAD_EDGE), fill=ASPHALT)
    for edge in (-ROAD_EDGE + 0.35, ROAD_EDGE - 0.35):
        draw.polygon(camera.ribbon(near, far, edge - 0.08, edge + 0.08), fill=PAINT)
    for dash in _multiples(camera, 2 * DASH):
        for edge in (-LANE_WIDTH / 2, LANE_WIDTH / 2):
            draw.polygon(camera.ribbon(dash, dash + DASH, edge - 0.1, edge + 0.1), fill=PAINT)
    _draw_finish(draw, camera)


def _multiples(camera: LaneCamera, spacing: float) -> list[float]:
    first, last = math.floor(camera.near / spacing), math.ceil(camera.far / spacing)
    return [spacing * index for index in range(first, last)]


def _draw_finish(draw: ImageDraw.ImageDraw, camera: LaneCamera) -> None:
    side = LANE_WIDTH / 6
    for column in range(2):
        for row in range(-6, 6):
            along, lateral = ROAD_LENGTH + column * side, row * side
            if along + side < camera.far:
                color = PAINT if (row + column) % 2 else (30, 32, 38)
                draw.polygon(camera.ribbon(along, along + side, lateral, lateral + side), fill=color)


def _draw_crosswalk(
    draw: ImageDraw.ImageDraw, camera: LaneCamera, scene: DrivingStates
) -> None:
    line = float(scene.line[0])
    if not camera.near < line < camera.far - CROSSWALK_LENGTH:
        return
    for stripe in np.arange(-4.2, 4.0, 1.2):
        area = camera.ribbon(line, line + CROSSWALK_LENGTH, stripe, stripe + 0.65)
        draw.polygon(area, fill=PAINT)
    beyond_center = float(pedestrian_walk(scene)[0][0])
    direction = float(scene.walk_direction[0])
    middle = line + CROSSWALK_LENGTH / 2
    facing = camera.heading(middle) + direction * math.pi / 2
    draw_pedestrian(draw, camera.pixel(middle, direction * beyond_center), facing, beyond_center)


def _draw_stop_line(
    draw: ImageDraw.ImageDraw, camera: LaneCamera, scene: DrivingStates
) -> None:
    line = float(scene.line[0])
    if not camera.near < line < camera.far - 1.0:
        return
    lit = next(name for name, on in zip(LAMPS, light_colors(scene), strict=True) if on[0])
    half = LANE_WIDTH / 2 - 0.15
    draw.polygon(camera.ribbon(line - 1.1, line + 1.6, -half, half), fill=(*LAMPS[lit], 90))
    draw.polygon(camera.ribbon(line, line + 0.5, -half, half), fill=PAINT)
    draw_light(draw, camera.pixel(line + 0.25, ROAD_EDGE + 1.4), lit)


def _draw_car(draw: ImageDraw.ImageDraw, camera: LaneCamera, scene: DrivingStates) -> None:
    position, offset = float(scene.position[0]), float(scene.offset[0])
    heading = camera.heading(position) + float(scene.heading[0])
    braking = bool(scene.acceleration[0] < -1.0)
    draw_car(draw, camera.pixel(position, offset), heading, float(scene.steering[0]), braking)


def _draw_caption(draw: ImageDraw.ImageDraw, scene: DrivingStates, task: DrivingTask) -> None:
    width, height = FRAME_SIZE[0] * SUPERSAMPLING, FRAME_SIZE[1] * SUPERSAMPLING
    panel = (16, height - 76, 400, height - 16)
    draw.rounded_rectangle(panel, 16, fill=PANEL)
    draw.text((36, height - 46), task.title, TEXT, ImageFont.load_default(30), anchor="lm")
    speed = f"{3.6 * float(scene.speed[0]):.0f} km/h"
    draw.text((380, height - 46), speed, TEXT, ImageFont.load_default(30), anchor="rm")
    done = min(float(scene.position[0]) / ROAD_LENGTH, 1.0)
    draw.rectangle((0, height - 6, width, height), fill=PANEL)
    draw.rectangle((0, height - 6, done * width, height), fill=(*GOOD, 255))


def _draw_verdict(draw: ImageDraw.ImageDraw, outcome: Outcome) -> None:
    text, color = VERDICTS[outcome]
    font = ImageFont.load_default(44)
    width = font.getlength(text)
    middle = FRAME_SIZE[0] * SUPERSAMPLING / 2
    panel = (middle - width / 2 - 36, 24, middle + width / 2 + 36, 104)
    draw.rounded_rectangle(panel, 24, fill=(*color, 235))
    draw.text((middle, 64), text, TEXT, font, anchor="mm")

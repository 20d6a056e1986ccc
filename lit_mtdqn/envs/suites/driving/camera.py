"""Bird's-eye camera that follows the car along the curved road."""

import numpy as np

from lit_mtdqn.envs.suites.driving.dynamics import curvature
from lit_mtdqn.envs.suites.driving.states import DrivingStates, Floats

Polygon = list[tuple[float, float]]

FRAME_SIZE = (480, 270)  # px, width and height
SUPERSAMPLING = 2
CANVAS_SIZE = (FRAME_SIZE[0] * SUPERSAMPLING, FRAME_SIZE[1] * SUPERSAMPLING)
PIXELS_PER_METER = 9.5 * SUPERSAMPLING
CAR_PIXEL = np.array([0.24 * CANVAS_SIZE[0], 0.5 * CANVAS_SIZE[1]])
VIEW_BEHIND, VIEW_AHEAD = 18.0, 50.0  # m along the road
AIM_AHEAD = 14.0  # m, the road's direction there points to the right of the frame
GRID_STEP = 0.25  # m


class LaneCamera:
    """Maps lane coordinates to the pixels of the supersampled frame.

    Args:
        states: The one episode to look at.
    """

    def __init__(self, states: DrivingStates) -> None:
        car = float(states.position[0])
        self.near, self.far = car - VIEW_BEHIND, car + VIEW_AHEAD
        self._along: Floats = np.arange(self.near, self.far + GRID_STEP, GRID_STEP)
        bends = curvature(states, self._along[:, None])[:, 0]
        headings = np.cumsum(bends) * GRID_STEP
        self._heading: Floats = headings - np.interp(car + AIM_AHEAD, self._along, headings)
        self._x = self._integrate(np.cos(self._heading), car)
        self._y = self._integrate(np.sin(self._heading), car)

    def _integrate(self, slope: Floats, zero_at: float) -> Floats:
        values: Floats = np.cumsum(slope) * GRID_STEP
        return values - np.interp(zero_at, self._along, values)

    def heading(self, along: float) -> float:
        """Return the direction of the road in the frame in rad, anticlockwise from the right."""
        return float(np.interp(along, self._along, self._heading))

    def pixels(self, along: Floats, lateral: Floats) -> Polygon:
        """Return the pixels of points `along` the road and `lateral` to its centre, both in m."""
        heading = np.interp(along, self._along, self._heading)
        x = np.interp(along, self._along, self._x) - np.sin(heading) * lateral
        y = np.interp(along, self._along, self._y) + np.cos(heading) * lateral
        points = CAR_PIXEL + PIXELS_PER_METER * np.stack([x, -y], axis=-1)
        return [(float(column), float(row)) for column, row in points]

    def pixel(self, along: float, lateral: float) -> tuple[float, float]:
        """Return the pixel of one point."""
        return self.pixels(np.array([along]), np.array([lateral]))[0]

    def ribbon(self, start: float, end: float, right: float, left: float) -> Polygon:
        """Return the polygon that follows the road from `start` to `end`, all in m."""
        start, end = max(start, self.near), min(end, self.far)
        along = np.linspace(start, end, max(2, int((end - start) / (4 * GRID_STEP)) + 1))
        there = self.pixels(along, np.full_like(along, right))
        back = self.pixels(along[::-1], np.full_like(along, left))
        return there + back

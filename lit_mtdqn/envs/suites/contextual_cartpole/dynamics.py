"""The cart and the pole, as in Gymnasium, with physics of their own in every copy."""

import math

from lit_mtdqn.functional.arrays import namespace_of
from lit_mtdqn.types import Array

Floats = Array
Bools = Array

TIME_STEP = 0.02  # s
MAX_POSITION = 2.4  # m from the middle
MAX_ANGLE = 12 * 2 * math.pi / 360  # rad from upright


def move(states: Floats, context: Floats, push_right: Bools) -> Floats:
    """Return the states after one explicit Euler step.

    Args:
        states: Position, velocity, angle and angular velocity, [4, N].
        context: Physics of each copy, [5, N] in the order of `CONTEXT_NAMES`.
        push_right: Whether the cart is pushed to the right, else to the left, [N].

    References:
        Barto, Sutton and Anderson 1983, "Neuronlike adaptive elements that can solve difficult
        learning control problems"; equations as corrected by Florian 2007,
        https://coneural.org/florian/papers/05_cart_pole.pdf.
    """
    xp = namespace_of(states)
    x, x_dot, theta, theta_dot = states
    gravity, length, cart_mass, pole_mass, force_size = context
    # Derived from the context at every step, so that they cannot be stale.
    total_mass = pole_mass + cart_mass
    pole_moment = pole_mass * length
    force = xp.where(push_right, force_size, -force_size)
    cos, sin = xp.cos(theta), xp.sin(theta)
    temp = (force + pole_moment * xp.square(theta_dot) * sin) / total_mass
    angular = (gravity * sin - cos * temp) / (
        length * (4.0 / 3.0 - pole_mass * xp.square(cos) / total_mass)
    )
    linear = temp - pole_moment * angular * cos / total_mass
    return xp.stack(
        (
            x + TIME_STEP * x_dot,
            x_dot + TIME_STEP * linear,
            theta + TIME_STEP * theta_dot,
            theta_dot + TIME_STEP * angular,
        )
    )


def has_fallen(states: Floats) -> Bools:
    """Return where the cart left the track or the pole leans too far, [N]."""
    return (abs(states[0]) > MAX_POSITION) | (abs(states[2]) > MAX_ANGLE)

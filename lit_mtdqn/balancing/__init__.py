"""How tasks share one update."""

from lit_mtdqn.balancing.aggregated import Aggregated
from lit_mtdqn.balancing.base import Backward, Balancer, TaskGradients, TaskLosses
from lit_mtdqn.balancing.grad_norm import GradNorm
from lit_mtdqn.balancing.independent_steps import IndependentSteps
from lit_mtdqn.balancing.scalarised import Scalarised
from lit_mtdqn.balancing.source_gradients import SourceGradients

__all__ = [
    "Aggregated",
    "Backward",
    "Balancer",
    "GradNorm",
    "IndependentSteps",
    "Scalarised",
    "SourceGradients",
    "TaskGradients",
    "TaskLosses",
]

"""What is minimised."""

from lit_mtdqn.objectives.td import TD

__all__ = ["TD"]

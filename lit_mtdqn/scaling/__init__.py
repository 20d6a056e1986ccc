"""What brings the values of unlike tasks to one scale."""

from lit_mtdqn.scaling.base import Scale
from lit_mtdqn.scaling.pop_art import PopArt
from lit_mtdqn.scaling.return_normaliser import ReturnNormaliser
from lit_mtdqn.scaling.return_scaling import ReturnScaling

__all__ = ["PopArt", "ReturnNormaliser", "ReturnScaling", "Scale"]

"""A generator of a GPU, as one is seen without one."""

import torch


class GpuGenerator(torch.Generator):
    """Has the states of a generator of CUDA, 16 bytes, and draws nothing of its own.

    Args:
        number: What its state is made of.
    """

    device = torch.device("cuda", 0)

    def __new__(cls, number: int = 0) -> "GpuGenerator":
        """Make one of the CPU, whose own state is never seen."""
        return super().__new__(cls)

    def __init__(self, number: int = 0) -> None:
        self.state = torch.full((16,), number, dtype=torch.uint8)

    def get_state(self) -> torch.Tensor:
        """Return the state."""
        return self.state.clone()

    def set_state(self, new_state: torch.Tensor) -> "GpuGenerator":
        """Take a state, as CUDA does none but of this size."""
        if new_state.shape != (16,) or new_state.device.type != "cpu":
            raise RuntimeError("RNG state is wrong size")
        self.state = new_state
        return self

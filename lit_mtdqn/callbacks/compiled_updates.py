"""Updates as fewer and fatter operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils._pytree import tree_map_only

from lit_mtdqn.types import Clock, HasCompilableUpdates, require

Mode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
REPLAYED = ("reduce-overhead", "max-autotune")
FLAGS: dict[str, Any] = {
    # Updates take gradients outside of autocast.
    "backward_pass_autocast": "off",
    # Balancers go back through a graph twice where terms are added after balancing.
    "donated_buffer": False,
    # Else what an activation cut off is saved beside its result, bool by bool on a CPU.
    "recompute_views": True,
}


class CompiledUpdates(Callback):
    """Compiles what updates compute, forwards and backwards, when the first one is made.

    `torch.compile` makes a graph of the learner's `losses`, and of its `target` where the scale
    follows targets; how their gradient is combined and clipped, the optimiser, the target network
    and the clock stay as they are, and so do acting, logging and checkpoints. Without a compiler,
    or for losses that no graph can hold, it warns once and updates go on as they were. A coefficient
    that changes with the count of updates compiles once more at its first change, and where its
    schedule bends.

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.CompiledUpdates

    Args:
        mode: As `torch.compile` has it. `reduce-overhead` replays CUDA graphs, `max-autotune` does
            so too and looks longer for fast kernels; on a CPU they are as `default`.

    Raises:
        ValueError: If the mode is unknown.

    References:
        Ansel et al. 2024, "PyTorch 2: Faster Machine Learning Through Dynamic Python Bytecode
        Transformation and Graph Compilation", https://doi.org/10.1145/3620665.3640366.
    """

    def __init__(self, mode: Mode = "default") -> None:
        require(mode in MODES, "CompiledUpdates.mode", f"be one of {', '.join(MODES)}", mode)
        self.mode = mode

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Check that there are updates to compile."""
        name, must = type(pl_module).__name__, "be a ValueLearner for CompiledUpdates"
        require(isinstance(pl_module, HasCompilableUpdates), "model", must, name)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Let updates be compiled."""
        pl_module.compile_updates(partial(Compiled, mode=self.mode))

    def on_update_end(self, trainer: lightning.Trainer, learner: Any, clock: Clock) -> None:
        """Let CUDA graphs write over what this update has computed."""
        if self.mode in REPLAYED:
            torch.compiler.cudagraph_mark_step_begin()

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Leave the learner as it was."""
        pl_module.release_updates()


class Compiled:
    """A function of tensors, compiled when it is first called, or as it is where that fails.

    Args:
        function: Neither changes its arguments nor prints.
        mode: As `torch.compile` has it.
    """

    def __init__(self, function: Callable[..., Any], mode: str) -> None:
        self.function = function
        self.replays = mode in REPLAYED and torch.cuda.is_available()
        compiler = partial(compile_graph, mode=mode)
        self._call = torch.compile(_with_own_code(function), fullgraph=True, backend=compiler)

    def __call__(self, *arguments: Any) -> Any:
        """Return what the function does."""
        if self._call is self.function:
            return self.function(*arguments)
        try:
            found = self._call(*arguments)
        except Exception as error:
            if not _is_of_compiler(error):
                raise
            reason = str(error).strip().split("\n", 1)[0]
            rank_zero_warn(
                f"CompiledUpdates could not compile `{self.function.__name__}` and goes on "
                f"without: {reason}"
            )
            self._call = self.function
            return self.function(*arguments)
        # The next replay writes to the same memory, and errors are kept until a phase ends.
        return tree_map_only(torch.Tensor, torch.clone, found) if self.replays else found


def compile_graph(
    graph: torch.fx.GraphModule, inputs: Sequence[Any], mode: str
) -> Callable[..., Any]:
    """Return a graph as machine code, and with it that of its gradient."""
    # Here, because both take longer to import than the rest of the package.
    from torch import _inductor
    from torch._functorch import config

    with config.patch(FLAGS):
        return _inductor.compile(graph, list(inputs), _inductor.list_mode_options(mode))


def _with_own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does the same; PyTorch counts compilations by code, not by learner."""

    def call(*arguments: Any) -> Any:
        return function(*arguments)

    call.__code__ = call.__code__.replace()
    return call


def _is_of_compiler(error: Exception) -> bool:
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    return isinstance(error, (FailOnRecompileLimitHit, TorchDynamoException))

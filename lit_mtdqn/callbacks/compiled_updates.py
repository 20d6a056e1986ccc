"""Updates as fewer and fatter operations."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils._pytree import tree_map_only

from lit_mtdqn.types import HasCompilableUpdates, require

Mode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
# Those that replay CUDA graphs.
REPLAYING = ("reduce-overhead", "max-autotune")
FLAGS: dict[str, Any] = {
    # Updates take gradients outside of autocast.
    "backward_pass_autocast": "off",
    # Balancers go back through a graph twice where terms are added after balancing.
    "donated_buffer": False,
    # With the losses, and not within `backward()`, where nothing could fall back any more.
    "force_non_lazy_backward_lowering": True,
    # Else a rectified layer is saved twice, the second time as a mask that a CPU is slow to write.
    "recompute_views": True,
}

_NUMBERS = count()


class CompiledUpdates(Callback):
    """Compiles what updates compute, forwards and backwards, when the first one is made.

    `torch.compile` makes a graph of the learner's `losses`, and one of its `target` where the scale
    follows targets. How gradients are combined and clipped, the optimiser, the target network and
    the clock stay as they are, and so do acting, logging and checkpoints, which know nothing of it.
    A coefficient on a schedule of updates compiles once more when it first changes, and ends the
    replay of CUDA graphs. Random numbers that losses draw, such as implicit quantiles, are others
    than without. Without a compiler, or for losses that no graph can hold, it warns once and
    updates go on as they were.

        trainer:
          callbacks+:
          - class_path: lit_mtdqn.callbacks.CompiledUpdates

    Args:
        mode: As `torch.compile` has it. On GPUs `reduce-overhead` replays CUDA graphs;
            `max-autotune` does so, too, and takes longer to look for fast kernels.

    Raises:
        ValueError: If the mode is unknown, or the model has no such updates.

    References:
        Ansel et al. 2024, "PyTorch 2: Faster Machine Learning Through Dynamic Python Bytecode
        Transformation and Graph Compilation", https://doi.org/10.1145/3620665.3640366.
    """

    def __init__(self, mode: Mode = "default") -> None:
        require(mode in MODES, "CompiledUpdates.mode", f"be one of {', '.join(MODES)}", mode)
        self.mode = mode
        self._undo = ExitStack()

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Check that there are updates to compile."""
        name, must = type(pl_module).__name__, "be a ValueLearner for CompiledUpdates"
        require(isinstance(pl_module, HasCompilableUpdates), "model", must, name)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Let updates be compiled."""
        # Here, because it takes longer to import than the rest of the package.
        from torch._functorch import config

        # Not every PyTorch has all of them.
        known = {name: value for name, value in FLAGS.items() if hasattr(config, name)}
        self._undo.enter_context(config.patch(known))
        give_up = self._undo.callback(pl_module.release_updates)
        pl_module.compile_updates(partial(Compiled, mode=self.mode, give_up=give_up))

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Leave the learner and PyTorch as they were."""
        self._undo.close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException
    ) -> None:
        """Leave the learner and PyTorch as they were."""
        self._undo.close()


class Compiled:
    """A function of tensors, compiled when it is first called, or called as it is if that fails.

    Args:
        function: Changes nothing but its result.
        mode: As `torch.compile` has it.
        give_up: Called, after a warning, if it cannot be compiled.
    """

    def __init__(
        self, function: Callable[..., Any], mode: str, give_up: Callable[[], None]
    ) -> None:
        self.function, self.give_up = function, give_up
        self._replays = mode in REPLAYING and torch.cuda.is_available()
        compiler = partial(compile_graph, mode=mode)
        self._compiled = torch.compile(_with_own_code(function), fullgraph=True, backend=compiler)

    def __call__(self, *arguments: Any) -> Any:
        """Return what the function does."""
        if self._replays:
            # Else it is recorded anew after a call whose gradient nobody has taken, such as that of
            # an update that was skipped.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            found = self._compiled(*arguments)
        except Exception as error:
            if not _is_of_compiler(error):
                raise
            reason = str(getattr(error, "inner_exception", error)).strip().split("\n", 1)[0]
            name = self.function.__name__
            rank_zero_warn(f"`{name}` cannot be compiled, and updates go on without: {reason}")
            self.give_up()
            return self.function(*arguments)
        # The next replay writes to the same memory, and errors are kept until a phase ends.
        return tree_map_only(torch.Tensor, torch.clone, found) if self._replays else found


def compile_graph(
    graph: torch.fx.GraphModule, inputs: Sequence[Any], mode: str
) -> Callable[..., Any]:
    """Return a graph as machine code, and with it that of its gradient."""
    from torch import _inductor

    with warnings.catch_warnings():
        # The compiler uses PyTorch's older names.
        warnings.simplefilter("ignore", DeprecationWarning)
        options = {**_inductor.list_mode_options(mode), **_options_for(inputs)}
        made: Callable[..., Any] = _inductor.compile(graph, list(inputs), options)
    return made


def _options_for(inputs: Sequence[Any]) -> dict[str, Any]:
    """Return which options the inputs of a graph ask for, whatever the mode."""
    # A CUDA graph is recorded for each value of an integer, and kept: the count of updates never
    # comes again. `triton.cudagraph_skip_dynamic_graphs` would leave out kernels of other graphs,
    # too: https://github.com/pytorch/pytorch/pull/197139.
    counts = any(isinstance(given, torch.SymInt) for given in inputs)
    return {"triton.cudagraphs": False} if counts else {}


def _with_own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does the same, of which PyTorch has never seen other shapes.

    It counts compilations by code, and takes sizes that differ between two calls of one name and
    line for sizes that change, whichever learners called.
    """
    from torch._dynamo import patch_dynamo_config

    def call(*arguments: Any) -> Any:
        # The count of updates, for schedules, is a number that a module leads to.
        with patch_dynamo_config(allow_unspec_int_on_nn_module=True):
            return function(*arguments)

    name = f"{function.__name__}_{next(_NUMBERS)}"
    call.__code__ = call.__code__.replace(co_name=name)
    return call


def _is_of_compiler(error: Exception) -> bool:
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    return isinstance(error, (FailOnRecompileLimitHit, TorchDynamoException))

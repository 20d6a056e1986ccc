"""Several copies of a torso, computed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from lit_mtdqn.networks.rows import NamedRows, select
from lit_mtdqn.networks.small_convolution import SmallConvolution
from lit_mtdqn.networks.torsos import LayeredTorso, Pixels, Torso
from lit_mtdqn.types import require

# On [C, N, ...] they do what they do on [N, ...].
ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.SiLU, nn.GELU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, Pixels)
Between = Callable[[int, Tensor, Sequence[Tensor]], Tensor]


class Copies(NamedRows):
    """C torsos of one shape, each with parameters of its own, in batched products.

    The layers of a `LayeredTorso` become batched layers; any other torso is mapped over its stacked
    parameters, which for small networks takes two to three times as long. A copy is saved under its
    name as the torso by itself would be.

    Args:
        names: Names of the copies, in the order of `torsos`.
        torsos: The copies.
        shared: Whether several tasks use one copy.
        first: Layer from which on they are copied; those before are dropped.

    Raises:
        ValueError: If a torso keeps running statistics.
    """

    def __init__(
        self, names: Sequence[str], torsos: Sequence[Torso], shared: bool = False, first: int = 0
    ) -> None:
        super().__init__(names, shared)
        by_name = dict(zip(names, torsos, strict=True))
        ordered = [by_name[name] for name in self.row_names]
        self.num_features = ordered[0].num_features
        self._is_layered = isinstance(ordered[0], LayeredTorso)
        # In a list, lest its parameters be taken for this module's.
        self._template = [deepcopy(ordered[0]).to("meta")]
        self._layers = _steps(self._template[0], first)
        used = {flat for layer in self._layers for step in layer for flat in step.tensors.values()}
        self._stack(ordered, used)

    def _stack(self, torsos: Sequence[Torso], used: set[str]) -> None:
        normalisations = nn.modules.batchnorm._NormBase
        kept = any(isinstance(module, normalisations) for module in torsos[0].modules())
        require(not kept, "torso", "keep no running statistics to be copied", "batch norm")
        parameters, buffers = stack_module_state(list(torsos))
        saved = torsos[0].state_dict().keys()
        names = {_flat(name): name for name in (*parameters, *buffers)}
        self._dotted = {flat: name for flat, name in names.items() if flat in used}
        for flat, name in self._dotted.items():
            if name in parameters:
                own = nn.Parameter(parameters[name].detach().clone())
                self.register_parameter(flat, own)
            else:
                self.register_buffer(flat, buffers[name], persistent=name in saved)
        # Gains and biases have one axis.
        self.undecayed = tuple(flat for flat, p in self.named_parameters() if p.dim() <= 2)

    def forward(
        self, observation: Tensor, rows: Tensor | None = None, between: Between | None = None
    ) -> tuple[Tensor, ...]:
        """Return the outputs of the layers, [C, N, ...] each, the features last.

        Args:
            observation: [C, N, *O].
            rows: Which copies, [C], in the order of their names; None takes all.
            between: Changes the output of a layer, given its number, its output and what the layers
                before put out in the end; for layered torsos alone.
        """
        outputs: list[Tensor] = []
        for number, layer in enumerate(self._layers):
            for run, module, tensors in layer:
                stacks = {name: select(getattr(self, t), rows) for name, t in tensors.items()}
                observation = run(module, stacks, observation)
            if not self._is_layered:
                return observation  # type: ignore[return-value]
            if between is not None:
                observation = between(number, observation, outputs)
            outputs.append(observation)
        return tuple(outputs)

    def train(self, mode: bool = True) -> Self:
        """Set the mode."""
        self._template[0].train(mode)
        return super().train(mode)

    def _saved_row(self, name: str, stack: Tensor, row: int) -> tuple[str, Tensor]:
        return f"{self.row_names[row]}.{self._dotted[name]}", stack[row]

    def extra_repr(self) -> str:
        """Name the copies."""
        return f"copies={self.row_names}, of={type(self._template[0]).__name__}"


class _Step(NamedTuple):
    """A module of a torso as it is applied to all copies.

    Attributes:
        run: Maps the module, its tensors [C, ...] and inputs [C, N, ...] to outputs [C, N, ...].
        module: The module of one copy, without data.
        tensors: Names of its parameters and buffers, in the module and in `Copies`.
    """

    run: Callable[[Any, dict[str, Tensor], Tensor], Tensor]
    module: nn.Module
    tensors: dict[str, str]


def _steps(torso: Torso, first: int) -> list[list[_Step]]:
    """Return the steps of each layer from the first one on; of other torsos, one step alone."""
    layers = torso.chain()[first:] if isinstance(torso, LayeredTorso) else [[torso]]
    prefixes = {module: f"{name}." if name else "" for name, module in torso.named_modules()}

    def step(module: nn.Module) -> _Step:
        names = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
        tensors = {name: _flat(prefixes[module] + name) for name in names}
        return _Step(_batched(module, bool(names)), module, tensors)

    return [[step(module) for module in layer] for layer in layers]


def _flat(name: str) -> str:
    return name.replace(".", "__")


def _batched(
    module: nn.Module, has_tensors: bool
) -> Callable[[Any, dict[str, Tensor], Tensor], Any]:
    """Return the fastest way to apply copies of a module."""
    if not has_tensors:
        return _elementwise if isinstance(module, ELEMENTWISE) else _folded
    # Subclasses may do something else.
    if type(module) is nn.Linear:
        return _linear
    if type(module) is nn.LayerNorm and len(module.normalized_shape) == 1:
        return _layer_norm
    convolves = type(module) in (nn.Conv2d, SmallConvolution)
    if convolves and module.groups == 1 and module.padding_mode == "zeros":
        return convolution
    return _mapped


def _elementwise(module: nn.Module, tensors: dict[str, Tensor], inputs: Tensor) -> Tensor:
    output: Tensor = module(inputs)
    return output


def _folded(module: nn.Module, tensors: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """Apply a module without parameters as if all copies were one batch."""
    output: Tensor = module(inputs.flatten(0, 1))
    return output.view(*inputs.shape[:2], *output.shape[1:])


def _linear(module: nn.Linear, tensors: dict[str, Tensor], inputs: Tensor) -> Tensor:
    weight, bias = tensors["weight"].mT, tensors.get("bias")
    if bias is None:
        return torch.bmm(inputs, weight)
    return torch.baddbmm(bias.unsqueeze(1), inputs, weight)


def _layer_norm(module: nn.LayerNorm, tensors: dict[str, Tensor], inputs: Tensor) -> Tensor:
    scaled = F.layer_norm(inputs, inputs.shape[-1:], eps=module.eps)
    scaled = scaled * tensors["weight"].unsqueeze(1)
    return scaled + tensors["bias"].unsqueeze(1) if "bias" in tensors else scaled


def convolution(module: nn.Conv2d, tensors: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """Convolve inputs [C, N, ...] of all copies as groups of one convolution.

    Args:
        module: States strides and padding.
        tensors: Weights [C, out, in, ...] and perhaps biases [C, out].
        inputs: [C, N, in, ...].
    """
    copies, images = inputs.shape[:2]
    bias = tensors["bias"].flatten() if "bias" in tensors else None
    # Images first: the output of one convolution is the next one's input without a copy.
    grouped = inputs.transpose(0, 1).reshape(images, -1, *inputs.shape[3:])
    output = F.conv2d(
        grouped,
        tensors["weight"].flatten(0, 1),
        bias,
        module.stride,
        module.padding,
        module.dilation,
        groups=copies,
    )
    return output.view(images, copies, -1, *output.shape[2:]).transpose(0, 1)


def _mapped(module: nn.Module, tensors: dict[str, Tensor], inputs: Tensor) -> Any:
    """Apply any module, mapped over its tensors."""

    def one(own: dict[str, Tensor], rows: Tensor) -> Any:
        return functional_call(module, own, (rows,))

    return vmap(one, randomness="different")(tensors, inputs)

"""Several copies of a torso, computed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from lit_mtdqn.networks.rows import NamedRows
from lit_mtdqn.networks.torsos import LayeredTorso, Torso
from lit_mtdqn.types import require

# On [C, N, ...] they do what they do on [N, ...].
ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.SiLU, nn.GELU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Identity)
Between = Callable[[int, Tensor], Tensor]


class Copies(nn.Module):
    """C torsos of one shape, each with parameters of its own, in batched products.

    The layers of a `LayeredTorso` become batched layers; any other torso is mapped over its stacked
    parameters, which for small networks takes four times as long.

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
        super().__init__()
        by_name = dict(zip(names, torsos, strict=True))
        ordered: list[Any] = [by_name[name] for name in sorted(by_name)]
        self.num_features: int = ordered[0].num_features
        self.is_layered = isinstance(ordered[0], LayeredTorso)
        if not self.is_layered:
            self.torso = _Mapped(names, ordered, shared)
            return
        self.layer_sizes: tuple[int, ...] = ordered[0].layer_sizes[first:]
        start = 0 if first == 0 else ordered[0].ends[first - 1] + 1
        self.ends = tuple(end - start for end in ordered[0].ends[first:])
        modules = zip(*(list(torso.layers)[start:] for torso in ordered), strict=True)
        self.layers = nn.ModuleList(_stacked(names, each, shared) for each in modules)
        self._has_rows = [isinstance(layer, NamedRows) for layer in self.layers]

    def forward(
        self, observation: Tensor, rows: Tensor | None = None, between: Between | None = None
    ) -> tuple[Tensor, ...]:
        """Return the outputs of the layers, [C, N, ...] each, the features last.

        Args:
            observation: [C, N, *O].
            rows: Which copies, [C], in the order of their names; None takes all.
            between: Changes the output of a layer by its number; for layered torsos alone.
        """
        if not self.is_layered:
            outputs: tuple[Tensor, ...] = self.torso(observation, rows)
            return outputs
        found: list[Tensor] = []
        for index, module in enumerate(self.layers):
            arguments = (observation, rows) if self._has_rows[index] else (observation,)
            observation = module(*arguments)
            if index in self.ends:
                if between is not None:
                    observation = between(len(found), observation)
                found.append(observation)
        return tuple(found)


def as_rows(layers: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return outputs [S, B, ...] of layers as [S * B, W]."""
    return tuple(layer.flatten(2).flatten(0, 1) for layer in layers)


def _stacked(names: Sequence[str], modules: Sequence[nn.Module], shared: bool) -> nn.Module:
    module = modules[0]
    if not module.state_dict(keep_vars=True):
        return module if isinstance(module, ELEMENTWISE) else _Folded(module)
    match module:
        case nn.Linear():
            return _Linear(names, modules, shared)
        case nn.Conv2d(groups=1, padding_mode="zeros"):
            return _Conv2d(names, modules, shared)
        case nn.LayerNorm(normalized_shape=(_,)):
            return _LayerNorm(names, modules, shared)
    return _Mapped(names, modules, shared)


class _Folded(nn.Module):
    """Applies a module without parameters to all copies as if they were one batch."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.module(inputs.flatten(0, 1))
        return output.view(*inputs.shape[:2], *output.shape[1:])


def _stack(modules: Sequence[Any], name: str) -> Tensor:
    return torch.stack([getattr(module, name).detach() for module in modules])


class _Linear(NamedRows):
    """Linear layers, weights [C, in, out]."""

    bias: Tensor | None

    def __init__(self, names: Sequence[str], modules: Sequence[nn.Module], shared: bool) -> None:
        super().__init__(names, shared)
        self.weight = nn.Parameter(_stack(modules, "weight").mT.contiguous())
        has_bias = modules[0].bias is not None
        bias = nn.Parameter(_stack(modules, "bias").unsqueeze(1)) if has_bias else None
        self.register_parameter("bias", bias)

    def forward(self, inputs: Tensor, rows: Tensor | None) -> Tensor:
        weight = self.select(self.weight, rows)
        if self.bias is None:
            return torch.bmm(inputs, weight)
        return torch.baddbmm(self.select(self.bias, rows), inputs, weight)

    def _saved_row(self, name: str, stack: Tensor, row: int) -> tuple[str, Tensor]:
        view = stack[row].squeeze(0) if name == "bias" else stack[row]
        return f"{self.row_names[row]}.{name}", view

    def extra_repr(self) -> str:
        return f"copies={self.row_names}, shape={tuple(self.weight.shape[1:])}"


class _LayerNorm(NamedRows):
    """Layer normalisations over the last axis."""

    undecayed = ("weight",)

    bias: Tensor | None

    def __init__(self, names: Sequence[str], modules: Sequence[Any], shared: bool) -> None:
        super().__init__(names, shared)
        self.eps: float = modules[0].eps
        self.weight = nn.Parameter(_stack(modules, "weight").unsqueeze(1))
        has_bias = modules[0].bias is not None
        bias = nn.Parameter(_stack(modules, "bias").unsqueeze(1)) if has_bias else None
        self.register_parameter("bias", bias)

    def forward(self, inputs: Tensor, rows: Tensor | None) -> Tensor:
        scaled = F.layer_norm(inputs, inputs.shape[-1:], eps=self.eps)
        scaled = scaled * self.select(self.weight, rows)
        return scaled if self.bias is None else scaled + self.select(self.bias, rows)

    def _saved_row(self, name: str, stack: Tensor, row: int) -> tuple[str, Tensor]:
        return f"{self.row_names[row]}.{name}", stack[row].squeeze(0)


class _Conv2d(NamedRows):
    """Convolutions, as groups of one."""

    bias: Tensor | None

    def __init__(self, names: Sequence[str], modules: Sequence[Any], shared: bool) -> None:
        super().__init__(names, shared)
        first = modules[0]
        self.stride, self.padding, self.dilation = first.stride, first.padding, first.dilation
        self.weight = nn.Parameter(_stack(modules, "weight"))
        bias = nn.Parameter(_stack(modules, "bias")) if first.bias is not None else None
        self.register_parameter("bias", bias)

    def forward(self, inputs: Tensor, rows: Tensor | None) -> Tensor:
        copies, images = inputs.shape[:2]
        weight = self.select(self.weight, rows).flatten(0, 1)
        bias = None if self.bias is None else self.select(self.bias, rows).flatten()
        # Images first: the output of one convolution is the next one's input without a copy.
        grouped = inputs.transpose(0, 1).reshape(images, -1, *inputs.shape[3:])
        output = F.conv2d(
            grouped, weight, bias, self.stride, self.padding, self.dilation, groups=copies
        )
        return output.view(images, copies, -1, *output.shape[2:]).transpose(0, 1)


class _Mapped(NamedRows):
    """Any module, mapped over stacks of its parameters and buffers."""

    def __init__(self, names: Sequence[str], modules: Sequence[nn.Module], shared: bool) -> None:
        super().__init__(names, shared)
        statistics = any(
            isinstance(m, nn.modules.batchnorm._NormBase) for m in modules[0].modules()
        )
        require(not statistics, "torso", "keep no running statistics to be copied", "batch norm")
        parameters, buffers = stack_module_state(list(modules))
        saved = modules[0].state_dict().keys()
        self._flat = {name: name.replace(".", "__") for name in (*parameters, *buffers)}
        self._dotted = {flat: name for name, flat in self._flat.items()}
        for name, stack in parameters.items():
            own = nn.Parameter(stack.detach().clone(), requires_grad=stack.requires_grad)
            self.register_parameter(self._flat[name], own)
        for name, stack in buffers.items():
            self.register_buffer(self._flat[name], stack, persistent=name in saved)
        each = dict(zip(self._flat, parameters.values(), strict=False))
        # Gains and biases have one axis.
        self.undecayed = tuple(self._flat[name] for name, p in each.items() if p.dim() <= 2)
        # In a list, lest its parameters be taken for this module's.
        self._template = [deepcopy(modules[0]).to("meta")]

    def train(self, mode: bool = True) -> Self:
        self._template[0].train(mode)
        return super().train(mode)

    def forward(self, inputs: Tensor, rows: Tensor | None) -> Any:
        stacks = {name: self.select(getattr(self, flat), rows) for name, flat in self._flat.items()}
        return vmap(self._one, randomness="different")(stacks, inputs)

    def _one(self, tensors: dict[str, Tensor], inputs: Tensor) -> Any:
        return functional_call(self._template[0], tensors, (inputs,))

    def _saved_row(self, name: str, stack: Tensor, row: int) -> tuple[str, Tensor]:
        return f"{self.row_names[row]}.{self._dotted[name]}", stack[row]

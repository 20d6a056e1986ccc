from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import assert_equal_tensors, complaint
from torch import Tensor, nn

from lit_mtdqn.functional.parameters import split_by_weight_decay
from lit_mtdqn.networks import ConvTorso, LayeredTorso, MinAtarTorso, MLPTorso, Torso
from lit_mtdqn.networks.copies import Copies
from lit_mtdqn.types import TaskInfo

VECTOR = [TaskInfo(name="left", observation_shape=(4,), num_actions=2)]
IMAGE = [
    TaskInfo(
        name="left",
        observation_shape=(3, 12, 12),
        num_actions=2,
        observation_kind="image",
        observation_high=255.0,
    )
]


class Own(Torso):
    """A torso that a user wrote, which is no chain of layers."""

    num_features = 5

    def __init__(self, tasks: Sequence[Any]) -> None:
        super().__init__()
        self.direct, self.curved = nn.Linear(4, 5), nn.Linear(4, 5)
        self.register_buffer("scale", torch.rand(1))

    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        scaled = observation * self.get_buffer("scale")
        return (self.direct(scaled) + self.curved(scaled).tanh(),)


class Pooling(LayeredTorso):
    """A torso of layers that have no batched form of their own."""

    layer_sizes, num_features = (6, 7), 7

    def __init__(self, tasks: Sequence[Any]) -> None:
        super().__init__()
        self.pooled = nn.Sequential(
            nn.Conv2d(3, 6, 3, groups=3), nn.GroupNorm(2, 6), nn.MaxPool2d(2)
        )
        self.flat = nn.Sequential(
            nn.Flatten(), nn.Linear(150, 7, bias=False), nn.LayerNorm(7), nn.Softmax(dim=1)
        )

    def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
        pooled = self.pooled(observation)
        return pooled, self.flat(pooled)

    def chain(self) -> list[list[nn.Module]]:
        return [list(self.pooled), list(self.flat)]


TORSOS: dict[str, Any] = {
    "mlp": (partial(MLPTorso, hidden=(8, 6), activation=nn.Tanh), VECTOR),
    "normalised": (partial(MLPTorso, hidden=(8, 6), layer_norm=True), VECTOR),
    "convolutions": (
        partial(ConvTorso, channels=(4, 5), kernel_sizes=(4, 3), strides=(2, 1)),
        IMAGE,
    ),
    "minatar": (partial(MinAtarTorso, layer_norm=True), IMAGE),
    "own": (Own, VECTOR),
    "pooling": (Pooling, IMAGE),
}


def _shaken(torso: Any) -> Any:
    with torch.no_grad():
        for parameter in torso.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return torso


def _observations(tasks: list[TaskInfo], copies: int, rows: int = 5) -> Tensor:
    shape = (copies, rows, *tasks[0].observation_shape)
    if tasks[0].observation_kind == "vector":
        return torch.randn(shape)
    return torch.rand(shape) * 255.0


@pytest.mark.parametrize("name", TORSOS)
@pytest.mark.parametrize("rows", [None, [2, 0], [1, 1, 2, 0]], ids=str)
def test_copies_do_together_what_torsos_do_one_by_one(name: str, rows: list[int] | None) -> None:
    torso, tasks = TORSOS[name]
    torsos = [_shaken(torso(tasks)) for _ in range(3)]
    copies = Copies(["b", "c", "a"], torsos)
    by_name = [torsos[2], torsos[0], torsos[1]]
    observation = _observations(tasks, copies=len(rows or by_name))
    outputs = copies(observation, None if rows is None else torch.tensor(rows))
    for copy, row in enumerate(rows or range(3)):
        expected = by_name[row](observation[copy])
        for output, layer in zip(outputs, expected, strict=True):
            torch.testing.assert_close(
                output[copy].flatten(1), layer.flatten(1), rtol=1e-4, atol=1e-5
            )
    assert copies.num_features == outputs[-1].shape[-1]


@pytest.mark.parametrize("name", TORSOS)
def test_gradients_of_copies_are_those_of_the_torsos(name: str) -> None:
    torso, tasks = TORSOS[name]
    torsos = [_shaken(torso(tasks)) for _ in range(2)]
    copies = Copies(["a", "b"], torsos)
    observation = _observations(tasks, copies=2)
    copies(observation)[-1].square().sum().backward()
    for each, rows in zip(torsos, observation, strict=True):
        each(rows)[-1].square().sum().backward()
    for row in range(2):
        found = sorted(float(p.grad[row].norm()) for p in copies.parameters() if p.grad is not None)
        expected = sorted(float(p.grad.norm()) for p in torsos[row].parameters())
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", TORSOS)
def test_a_copy_is_saved_as_its_torso_would_be(name: str) -> None:
    torso, tasks = TORSOS[name]
    torsos = {key: torso(tasks) for key in ("b", "a")}
    found = Copies(list(torsos), list(torsos.values())).state_dict()
    expected = {
        f"{key}.{entry}": tensor
        for key, each in torsos.items()
        for entry, tensor in each.state_dict().items()
    }
    assert_equal_tensors(found, expected)


@pytest.mark.parametrize("name", TORSOS)
def test_copies_load_by_their_names(name: str) -> None:
    torso, tasks = TORSOS[name]
    saved = Copies(["a", "b"], [_shaken(torso(tasks)) for _ in range(2)])
    loaded = Copies(["b", "c", "a"], [_shaken(torso(tasks)) for _ in range(3)])
    keys = loaded.load_state_dict(saved.state_dict(), strict=False)
    assert keys.unexpected_keys == []
    assert all(key.startswith("c.") for key in keys.missing_keys)
    observation = _observations(tasks, copies=2)
    loaded_rows = loaded(observation, torch.tensor([0, 1]))[-1]
    torch.testing.assert_close(loaded_rows, saved(observation)[-1])


def test_dropping_first_layers_leaves_the_rest() -> None:
    torsos = [MLPTorso(VECTOR, hidden=(8, 6, 5)) for _ in range(2)]
    rest = Copies(["a", "b"], torsos, first=1)
    hidden = torch.randn(2, 3, 8)
    outputs = rest(hidden)
    assert [output.shape[-1] for output in outputs] == [6, 5]
    for copy, torso in enumerate(torsos):
        expected = nn.Sequential(*list(torso.layers)[2:])(hidden[copy])
        torch.testing.assert_close(outputs[-1][copy], expected)


def test_something_may_act_between_layers() -> None:
    copies = Copies(["a", "b"], [MLPTorso(VECTOR, hidden=(8, 6)) for _ in range(2)])
    seen: list[int] = []

    def between(layer: int, output: Tensor, before: Sequence[Tensor]) -> Tensor:
        seen.append(len(before))
        return output * 0.0 + layer

    outputs = copies(torch.randn(2, 3, 4), between=between)
    assert seen == [0, 1]
    assert [output.mean().item() for output in outputs] == [0.0, 1.0]


def test_the_mode_reaches_copies_of_any_torso() -> None:
    class Dropping(Own):
        """Drops in training mode."""

        def forward(self, observation: Tensor) -> tuple[Tensor, ...]:
            (features,) = super().forward(observation)
            return (nn.functional.dropout(features, training=self.training),)

    copies = Copies(["a", "b"], [Dropping(VECTOR) for _ in range(2)])
    observation = torch.randn(2, 50, 4)
    assert (copies(observation)[-1] == 0.0).any()
    copies.eval()
    assert torch.equal(copies(observation)[-1], copies(observation)[-1])


def test_torsos_that_keep_running_statistics_are_refused() -> None:
    class Normalising(Own):
        """Normalises by batch."""

        def __init__(self, tasks: Sequence[Any]) -> None:
            super().__init__(tasks)
            self.norm = nn.BatchNorm1d(5)

    with pytest.raises(ValueError, match=complaint("torso")):
        Copies(["a"], [Normalising(VECTOR)])


@pytest.mark.parametrize("name", TORSOS)
def test_gains_biases_and_nothing_else_are_spared_by_weight_decay(name: str) -> None:
    torso, tasks = TORSOS[name]
    single = torso(tasks)
    decayed, spared = split_by_weight_decay(Copies(["a"], [single]))
    assert sum(p.numel() for p in decayed) == sum(
        p.numel() for p in single.parameters() if p.dim() > 1
    )
    assert sum(p.numel() for p in spared) == sum(
        p.numel() for p in single.parameters() if p.dim() == 1
    )

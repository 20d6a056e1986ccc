import random

import numpy as np
import pytest
import torch

from lit_mtdqn.functional.global_generators import (
    global_random_state,
    set_global_random_state_,
)

CPU = torch.device("cpu")


def _draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_all_global_generators_draw_on_from_a_saved_state() -> None:
    _draw()
    state = global_random_state(CPU)
    first = _draw()
    assert _draw() != first
    set_global_random_state_(state, CPU)
    assert _draw() == first


def _state(number: int) -> torch.Tensor:
    return torch.full((16,), number, dtype=torch.uint8)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> dict[torch.device, torch.Tensor]:
    """Three GPUs, each with the state of its generator."""
    states = {torch.device("cuda", place): _state(place) for place in range(3)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device: states.update({device: state})
    )
    return states


def test_of_several_gpus_that_of_the_run_alone_draws_on(
    gpus: dict[torch.device, torch.Tensor],
) -> None:
    before, now = torch.device("cuda", 1), torch.device("cuda", 2)
    state = global_random_state(before)
    gpus[before] = _state(7)
    set_global_random_state_(state, now)
    assert [int(number[0]) for number in gpus.values()] == [0, 7, 1]


@pytest.mark.parametrize("saved", [1, 2, 4])
def test_of_an_older_checkpoint_of_all_gpus_the_runs_own_state_is_taken(
    saved: int, gpus: dict[torch.device, torch.Tensor]
) -> None:
    state = {**global_random_state(CPU), "cuda": [_state(10 + place) for place in range(saved)]}
    set_global_random_state_(state, torch.device("cuda", 1))
    assert [int(number[0]) for number in gpus.values()] == [0, 10 if saved == 1 else 11, 2]


@pytest.mark.parametrize(
    ("saved", "device"), [(0, "cuda:0"), (2, "cuda:2"), (1, "cpu")], ids=lambda given: str(given)
)
def test_where_the_state_of_a_gpu_does_not_fit_a_warning_says_so(
    saved: int, device: str, gpus: dict[torch.device, torch.Tensor]
) -> None:
    first = _draw()
    state = {**global_random_state(CPU), "cuda": [_state(9)] * saved}
    second = _draw()
    said = rf"^Numbers drawn on {device} are others .* the generators of {saved} GPU\(s\)\.$"
    with pytest.warns(UserWarning, match=said):
        set_global_random_state_(state, torch.device(device))
    assert [int(number[0]) for number in gpus.values()] == [0, 1, 2]
    assert _draw() == second != first

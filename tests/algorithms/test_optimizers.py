from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from lit_mtdqn.algorithms.optimizers import Adam, build_optimizer


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)


def test_a_step_after_a_gradient_of_epsilon_is_half_the_learning_rate() -> None:
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.tensor([1e-5])
    Adam([weight], lr=0.1).step()
    assert weight.item() == pytest.approx(-0.05)


def test_adam_is_fused_and_takes_betas_as_a_list_as_configuration_files_hold_them() -> None:
    betas: Any = [0.5, 0.75]
    optimizer = Adam([nn.Parameter(torch.zeros(1))], betas=betas)
    assert optimizer.defaults["fused"] is True
    assert optimizer.defaults["betas"] == (0.5, 0.75)


def test_without_weight_decay_there_is_one_group_of_everything() -> None:
    module = Block()
    optimizer = build_optimizer(Adam, [module])
    assert len(optimizer.param_groups) == 1
    assert set(optimizer.param_groups[0]["params"]) == set(module.parameters())


def test_an_optimiser_that_evaluates_the_loss_again_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^`model\.optimizer` must step by .+ Got 'LBFGS'\.$"):
        build_optimizer(torch.optim.LBFGS, [Block()])


@pytest.mark.parametrize(
    ("factory", "decay"),
    [(partial(Adam, weight_decay=0.1), 0.1), (torch.optim.AdamW, 0.01)],
    ids=["chosen", "default"],
)
def test_under_weight_decay_biases_and_norms_have_a_group_without_it(
    factory: Any, decay: float
) -> None:
    module = Block()
    linear, norm = module.linear, module.norm
    decayed, spared = build_optimizer(factory, [module]).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (decay, 0.0)
    assert decayed["params"] == [linear.weight]
    assert set(spared["params"]) == {linear.bias, norm.weight, norm.bias}


def test_decay_shrinks_weights_and_leaves_the_others_where_they_are() -> None:
    module = Block()
    nn.init.ones_(module.linear.weight)
    nn.init.ones_(module.linear.bias)
    optimizer = build_optimizer(partial(torch.optim.AdamW, lr=0.5, weight_decay=0.5), [module])
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(module.linear.weight, torch.full((2, 3), 0.75))
    assert torch.equal(module.linear.bias, torch.ones(2))
    assert torch.equal(module.norm.weight, torch.ones(2))


def test_weight_decay_without_weights_leaves_one_group() -> None:
    (group,) = build_optimizer(torch.optim.AdamW, [nn.LayerNorm(2)]).param_groups
    assert group["weight_decay"] == 0.0


def test_several_modules_share_one_optimiser() -> None:
    modules = [Block(), Block()]
    found = build_optimizer(torch.optim.AdamW, modules).param_groups
    assert [len(group["params"]) for group in found] == [2, 6]


def test_frozen_parameters_are_not_optimised() -> None:
    module = Block()
    module.linear.requires_grad_(False)
    (group,) = build_optimizer(Adam, [module]).param_groups
    assert set(group["params"]) == set(module.norm.parameters())


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_every_group_remembers_its_initial_learning_rate(weight_decay: float) -> None:
    optimizer = build_optimizer(partial(Adam, lr=0.25, weight_decay=weight_decay), [Block()])
    assert all(group["initial_lr"] == 0.25 for group in optimizer.param_groups)

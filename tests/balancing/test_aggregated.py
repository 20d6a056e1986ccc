from functools import partial
from typing import Any

import pytest
import torch
from helpers.asserts import assert_table
from helpers.hand_backward import HandBackward, built
from torch import Tensor
from torchjd import aggregation

from lit_mtdqn.balancing import Aggregated

# Two tasks in conflict: their product is -1/2, their squared lengths 1 and 5/4.
CONFLICT = [[1.0, 0.0], [-0.5, 1.0]]
FRIENDS = [[1.0, 0.0], [0.5, 1.0]]
ROOT = 5.0**0.5


def _combined(make: Any, jacobian: Any, unbalanced: Any = None) -> Tensor:
    learner = HandBackward(jacobian, unbalanced)
    balancer = built(partial(Aggregated, aggregator=make), len(jacobian))
    balancer.accumulate(learner.losses(), learner)
    return learner.filled


def _needs_solvers(name: str, **arguments: Any) -> Any:
    """Return an aggregator, if what it needs is installed."""
    make = partial(getattr(aggregation, name), **arguments)
    try:
        make(**({"n_tasks": 2} if name == "NashMTL" else {}))
    except ImportError:
        pytest.skip(f"{name} needs the extra `solvers`")
    return make


def test_the_mean_is_that_of_equal_weights() -> None:
    assert_table(_combined(aggregation.Mean, CONFLICT), [0.25, 0.5])


def test_pcgrad_projects_each_gradient_off_those_it_conflicts_with() -> None:
    # g1 + 2/5 g2 = (0.8, 0.4) and g2 + 1/2 g1 = (0, 1).
    assert_table(_combined(aggregation.PCGrad, CONFLICT), [0.8, 1.4])


def test_pcgrad_sums_gradients_without_conflict() -> None:
    assert_table(_combined(aggregation.PCGrad, FRIENDS), [1.5, 1.0])


def test_upgrad_averages_projections_onto_the_cone_of_no_conflict() -> None:
    upgrad = _needs_solvers("UPGrad")
    torch.testing.assert_close(
        _combined(upgrad, CONFLICT), torch.tensor([0.4, 0.7]), atol=1e-3, rtol=0
    )


def test_mgda_takes_the_shortest_mixture() -> None:
    # The share of g1 is g2 (g2 - g1) / |g1 - g2|^2 = 7/13.
    mgda = partial(aggregation.MGDA, epsilon=1e-6, max_iters=1000)
    assert_table(_combined(mgda, CONFLICT), [4.0 / 13.0, 6.0 / 13.0])


@pytest.mark.parametrize("jacobian", [CONFLICT, FRIENDS])
def test_cagrad_lifts_the_worst_task_within_a_ball_around_the_mean(jacobian: Any) -> None:
    cagrad = _needs_solvers("CAGrad", c=0.5)
    rows = torch.tensor(jacobian)
    mean = rows.mean(0)
    angles = torch.linspace(0.0, 2.0 * torch.pi, 200_001)
    ball = mean + 0.5 * mean.norm() * torch.stack([angles.cos(), angles.sin()], 1)
    best = ball[(ball @ rows.T).amin(1).argmax()]
    torch.testing.assert_close(_combined(cagrad, jacobian), best, atol=2e-3, rtol=0)


def test_imtl_g_makes_equal_progress_along_every_gradient() -> None:
    found = _combined(aggregation.IMTLG, CONFLICT)
    # Weights (2, 3) / 5 would do for unit vectors u: the parts along both are equal.
    along = torch.tensor([[1.0, 0.0], [-1.0 / ROOT, 2.0 / ROOT]]) @ found
    assert float(along[0]) == pytest.approx(float(along[1]), rel=1e-4)
    share = torch.linalg.solve(torch.tensor(CONFLICT).T, found)
    assert float(share.sum()) == pytest.approx(1.0, rel=1e-4)


def test_aligned_mtl_makes_gradients_orthogonal_and_equally_long() -> None:
    rows = torch.tensor(CONFLICT)
    left, sizes, right = torch.linalg.svd(rows, full_matrices=False)
    aligned = sizes.min() * left @ right
    torch.testing.assert_close(_combined(aggregation.AlignedMTL, CONFLICT), aligned.mean(0))


# cvxpy says how torchjd could be faster.
@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")
def test_nash_mtl_weighs_by_the_inverse_of_each_tasks_progress() -> None:
    nash = _needs_solvers("NashMTL", optim_niter=100)
    rows = torch.tensor(CONFLICT)
    found = _combined(nash, CONFLICT)
    share = torch.linalg.solve(rows.T, found)
    products = share * (rows @ found)
    assert float(products[0]) == pytest.approx(float(products[1]), rel=1e-2)


CONFLICT_FREE = ["UPGrad", "DualProj", "MGDA"]


@pytest.mark.parametrize("name", CONFLICT_FREE)
@pytest.mark.parametrize("seed", range(3))
def test_no_task_gets_worse(name: str, seed: int) -> None:
    make = _needs_solvers(name)
    rows = torch.randn(3, 6, generator=torch.Generator().manual_seed(seed))
    rows[1] -= rows[0]
    found = _combined(make, rows.tolist())
    assert float((rows @ found).min()) > -1e-2


def test_what_is_added_is_added_afterwards() -> None:
    assert_table(_combined(aggregation.PCGrad, CONFLICT, [10.0, -1.0]), [10.8, 0.4])


def test_the_number_of_tasks_is_filled_in() -> None:
    class Counting(aggregation.Mean):
        def __init__(self, n_tasks: int) -> None:
            super().__init__()
            self.n_tasks = n_tasks

    counts = {}
    makes: dict[str, Any] = {"found": Counting, "given": partial(Counting, n_tasks=7)}
    for name, make in makes.items():
        balancer = built(partial(Aggregated, aggregator=make), 3)
        assert isinstance(balancer, Aggregated)
        assert isinstance(balancer.aggregator, Counting)
        counts[name] = balancer.aggregator.n_tasks
    assert counts == {"found": 3, "given": 7}


def test_ranks_with_unlike_tasks_are_refused() -> None:
    learner = HandBackward(CONFLICT)
    learner.world_size = 2
    balancer = built(partial(Aggregated, aggregator=aggregation.Mean), 3)
    with pytest.raises(ValueError, match=r"^`data.sampler` must fill every update"):
        balancer.accumulate(learner.losses(), learner)


def test_one_that_remembers_tasks_refuses_a_batch_without_one_and_others_do_not() -> None:
    learner = HandBackward(CONFLICT)
    built(partial(Aggregated, aggregator=aggregation.PCGrad), 3).accumulate(
        learner.losses(), learner
    )
    remembers = built(partial(Aggregated, aggregator=aggregation.GradVac), 3)
    with pytest.raises(ValueError, match=r"^`data.sampler` must fill every update"):
        remembers.accumulate(learner.losses(), learner)


def test_what_is_remembered_is_put_in_place_once_after_a_move_or_a_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    devices: list[torch.device] = []
    noted = "lit_mtdqn.balancing.aggregated.place_numbers"
    monkeypatch.setattr(noted, lambda _, device: devices.append(device))
    learner, expected = HandBackward(CONFLICT), 1
    balancer = built(partial(Aggregated, aggregator=aggregation.GradVac), 2)
    saved = balancer.get_extra_state()
    for change in (lambda: balancer.to("cpu"), lambda: balancer.set_extra_state(saved), None):
        for _ in range(2):
            balancer.accumulate(learner.losses(), learner)
        assert devices == [torch.device("cpu")] * expected
        if change is not None:
            change()
            expected += 1


def test_an_aggregator_that_finds_no_combination_is_named() -> None:
    class Helpless(aggregation.Mean):
        def forward(self, matrix: Tensor) -> Tensor:
            raise ArithmeticError("infeasible")

    said = r"`balancer.aggregator` must find .* Got ArithmeticError of Helpless: infeasible"
    with pytest.raises(RuntimeError, match=said):
        _combined(Helpless, CONFLICT)

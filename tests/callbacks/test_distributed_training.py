import platform
import warnings
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.asserts import assert_same_state, complaint
from helpers.runs import fit, quiet_trainer, small_data, small_model
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from lit_mtdqn.callbacks import DistributedTraining, distributed_training

DATA = SimpleNamespace(
    num_envs=16, batch_size=96, replay_capacity=1000, replay_ratio=0.0625, keeps_replays=True
)


def _trainer(strategy: type[Any] = DDPStrategy, **options: Any) -> Any:
    placed = type(
        "Placed", (strategy,), {"root_device": torch.device(options.pop("device", "cpu"))}
    )
    given = {"world_size": 4, "global_rank": 0, "precision": "32-true", "datamodule": DATA}
    return SimpleNamespace(strategy=object.__new__(placed), **{**given, **options})


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sentences: list[str] = []
    monkeypatch.setattr(distributed_training, "rank_zero_info", sentences.append)
    return sentences


def _set_up(trainer: Any, stage: str = "fit") -> None:
    DistributedTraining().setup(trainer, torch.nn.Identity(), stage)  # type: ignore[arg-type]


def test_ranks_are_told_their_shares(said: list[str]) -> None:
    _set_up(_trainer())
    (sentence,) = said
    assert "Each of 4 ranks plays 4 of 16 environments per task, keeps 250 of 1000" in sentence
    assert "gives 24 of 96 rows" in sentence
    # 96 rows of a task each 16 env steps of it.
    assert "learned from 6 times" in sentence


def test_without_replays_none_is_kept(said: list[str]) -> None:
    data = SimpleNamespace(**{**vars(DATA), "keeps_replays": False})
    _set_up(_trainer(datamodule=data))
    assert "keeps none" in said[0]


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_is_explained_on_one_rank_too(precision: str, said: list[str]) -> None:
    _set_up(_trainer(SingleDeviceStrategy, world_size=1, precision=precision))
    (sentence,) = said
    assert sentence.startswith(f"With {precision} networks compute in ")


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_an_evaluation_explains_nothing(stage: str, said: list[str]) -> None:
    _set_up(_trainer(precision="bf16-mixed"), stage)
    assert said == []


def test_one_process_in_full_precision_is_told_nothing_and_learns_as_without(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        data = small_data()
        models.append(small_model(data))
        fit(data, models[-1])
        monkeypatch.setattr(DistributedTraining, "on_train_start", lambda *_: None)
    assert said == []
    assert_same_state(*models)


def test_it_is_there_by_default() -> None:
    data = small_data()
    trainer = quiet_trainer()
    trainer.fit(small_model(data), data)
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    assert sum(isinstance(one, DistributedTraining) for one in callbacks) == 1


def test_a_strategy_that_splits_networks_is_refused() -> None:
    class Sharded:
        """Keeps a part of the network on each rank."""

    with pytest.raises(ValueError, match=complaint("trainer.strategy")):
        _set_up(_trainer(Sharded))


@pytest.mark.parametrize("has_it", [True, False])
def test_a_gpu_without_bfloat16_is_refused_where_it_is_asked_for(
    has_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def is_supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return has_it

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    for precision in ("32-true", "16-mixed"):
        _set_up(_trainer(device="cuda:0", precision=precision))
    _set_up(_trainer(precision="bf16-mixed"))
    assert asked == []
    refused = pytest.raises(ValueError, match=complaint("trainer.precision"))
    with nullcontext() if has_it else refused:
        _set_up(_trainer(device="cuda:0", precision="bf16-mixed"))
    assert asked == [False]


@pytest.mark.parametrize(
    ("machine", "has_it", "warns"),
    [("x86_64", False, True), ("x86_64", True, False), ("arm64", False, False)],
)
def test_a_processor_that_emulates_bfloat16_is_told_of(
    machine: str, has_it: bool, warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _set_up(_trainer(precision="32-true"))
        assert not caught
        _set_up(_trainer(precision="bf16-mixed"))
    assert [str(one.message) for one in caught if "bfloat16" in str(one.message)] == (
        [
            "This processor has no arithmetic in bfloat16 and emulates it: bf16-mixed takes longer "
            "here than 32-true."
        ]
        if warns
        else []
    )


def test_ranks_draw_apart_and_the_first_one_as_one_process() -> None:
    drawn = {}
    for rank in (0, 1, 2):
        torch.manual_seed(5)
        DistributedTraining().on_train_start(_trainer(global_rank=rank), torch.nn.Identity())  # type: ignore[arg-type]
        drawn[rank] = torch.rand(3).tolist()
    torch.manual_seed(5)
    assert drawn[0] == torch.rand(3).tolist()
    assert len({tuple(numbers) for numbers in drawn.values()}) == 3

"""What is left of a run acts as the run did, and runs no code on its word."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.counting_env import SINGLE
from helpers.runs import NETWORK
from helpers.saved_runs import NAMES_OWN_TORSO, save_run, save_run_of_own_torso

from lit_mtdqn import DQN, PQN, MultiTaskDQN, PolicyDistillation
from lit_mtdqn.deployment import read_run

TASKS = {"few": {"env": SINGLE}, "many": {"env": SINGLE, "kwargs": {"num_actions": 3}}}


@pytest.mark.parametrize(
    ("learner", "values"),
    [(DQN, True), (MultiTaskDQN, True), (PQN, True), (PolicyDistillation, False)],
)
def test_every_learner_leaves_a_policy(learner: Any, values: bool, tmp_path: Path) -> None:
    run = read_run(str(save_run(tmp_path / "run", TASKS, learner, network=NETWORK)), "RUN")
    saved = learner.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    observation, task = torch.randn(2, 4, 3), torch.tensor([1, 0])
    found = run.policy.action_values(observation, task)
    torch.testing.assert_close(found, saved.action_values(observation, task), rtol=0, atol=0)
    assert run.policy.predicts_values is values
    assert list(run.data.tasks) == ["few", "many"]
    assert run.data.eval_max_steps == 30


def test_a_checkpoint_in_the_folder_of_its_run_will_do(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run", TASKS, network=NETWORK)
    run = read_run(str(folder / "checkpoints" / "last.ckpt"), "RUN")
    assert run.folder == folder.resolve()
    assert run.checkpoint.stem == "last"


@pytest.mark.parametrize(
    ("change", "must"),
    [
        (lambda folder: (folder / "config.yaml").unlink(), "lie in the folder of its run"),
        (lambda folder: _write(folder, {"few": TASKS["few"]}), "have learned what its config.yaml"),
        (lambda folder: (folder / "config.yaml").write_text("a: 1"), "name tasks under `data"),
        (lambda folder: (folder / "config.yaml").write_text("a: !b 1"), "`RUN` must have a config"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(change: Any, must: str, tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run", TASKS, network=NETWORK)
    change(folder)
    with pytest.raises(ValueError, match=must):
        read_run(str(folder), "RUN")


def _write(folder: Path, tasks: dict[str, Any], model: Any = None) -> None:
    config = {"data": {"tasks": tasks}, "model": model}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def test_a_class_of_the_users_is_imported_if_the_configuration_names_it_and_never_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, module = save_run_of_own_torso(tmp_path, TASKS, monkeypatch)
    with pytest.raises(ValueError, match=r"`RUN` must be built of parts .*'own_torso\.Own'"):
        read_run(str(folder), "RUN")
    assert not module.with_suffix(".imported").exists()
    _write(folder, TASKS, NAMES_OWN_TORSO)
    assert read_run(str(folder), "RUN").policy.network.num_features == 8

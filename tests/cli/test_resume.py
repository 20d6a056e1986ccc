import json
from pathlib import Path

import pytest
import torch

from lit_mtdqn.cli.resume import check_resumed_model, resolve_checkpoint

SAVED = {
    "max_grad_norm": 10.0,
    "tasks": [{"name": "a"}],
    "optimizer": {"class_path": "lit_mtdqn.algorithms.optimizers.Adam", "init_args": {"lr": 0.1}},
}


def _config(lr: float, class_path: str = "lit_mtdqn.Adam") -> str:
    optimizer = {"class_path": class_path, "init_args": {"lr": lr, "eps": 1e-5}}
    init_args = {"max_grad_norm": 10.0, "optimizer": optimizer}
    return json.dumps({"fit": {"model": {"class_path": "lit_mtdqn.DQN", "init_args": init_args}}})


def test_the_same_model_is_accepted_under_another_path_of_the_class() -> None:
    check_resumed_model(SAVED, _config(0.1), "fit", Path("last.ckpt"))


def test_a_value_that_the_checkpoint_would_override_is_named() -> None:
    with pytest.raises(ValueError, match=r"`model.optimizer.init_args.lr` = 0.5 instead of 0.1"):
        check_resumed_model(SAVED, _config(0.5), "fit", Path("last.ckpt"))


def test_a_value_beside_a_default_that_was_not_saved_is_named() -> None:
    network = {"class_path": "lit_mtdqn.networks.QNetwork", "init_args": {}}
    optimizer = {"class_path": "lit_mtdqn.algorithms.optimizers.Adam", "init_args": {}}
    torso = {"class_path": "lit_mtdqn.networks.MLPTorso", "init_args": {"layer_norm": True}}
    asked = {
        "network": {**network, "init_args": {"torso": torso}},
        "optimizer": {**optimizer, "init_args": {"lr": 1.0, "eps": 1e-5}},
    }
    config = json.dumps({"model": {"class_path": "lit_mtdqn.DQN", "init_args": asked}})
    with pytest.raises(ValueError, match="agree with the checkpoint") as error:
        check_resumed_model({"network": network, "optimizer": optimizer}, config, "fit", Path("a"))
    assert "layer_norm` = True instead of False" in str(error.value)
    assert "lr` = 1.0 instead of 0.0005" in str(error.value)
    assert "eps" not in str(error.value)


GUIDANCE = "lit_mtdqn.objectives.Guidance"


def _guided(**arguments: object) -> dict[str, object]:
    return {"objectives": [{"class_path": GUIDANCE, "init_args": arguments}]}


def _asked(**arguments: object) -> str:
    return json.dumps({"model": {"class_path": "a", "init_args": _guided(**arguments)}})


def test_entries_of_a_list_are_compared_by_their_arguments() -> None:
    saved = _guided(teachers={"a": "runs/a"}, weight=2.0)
    asked = {"teachers": {"a": "runs/a"}, "weight": 2.0, "teacher_tasks": None, "kind": "value_kl"}
    check_resumed_model(saved, _asked(**asked), "fit", Path("last.ckpt"))
    # What an older package did not know yet is as it is by default.
    must = r"`model\.objectives\.0\.init_args\.kind` = mse instead of value_kl"
    with pytest.raises(ValueError, match=must):
        check_resumed_model(saved, _asked(**{**asked, "kind": "mse"}), "fit", Path("last.ckpt"))
    config = json.dumps({"model": {"init_args": {"objectives": []}}})
    with pytest.raises(ValueError, match=r"`model\.objectives` = \[\] instead of"):
        check_resumed_model(saved, config, "fit", Path("last.ckpt"))


def test_what_is_none_now_and_was_not_is_named() -> None:
    config = json.dumps({"model": {"init_args": {"max_grad_norm": None}}})
    with pytest.raises(ValueError, match=r"`model\.max_grad_norm` = None instead of 10\.0"):
        check_resumed_model(SAVED, config, "fit", Path("last.ckpt"))


def test_runs_beside_a_run_may_have_moved_with_it() -> None:
    saved, last = _guided(teachers={"a": "runs/steps/a"}), Path("last.ckpt")
    root = Path("/elsewhere/steps")
    check_resumed_model(saved, _asked(teachers={"a": f"{root}/a"}), "fit", last, root)
    for other in (f"{root}/b", "/other/steps/a"):
        with pytest.raises(ValueError, match=r"init_args\.teachers\.a` = "):
            check_resumed_model(saved, _asked(teachers={"a": other}), "fit", last, root)


def test_another_class_is_named() -> None:
    with pytest.raises(ValueError, match=r"`model.optimizer.class_path` = torch.optim.SGD"):
        check_resumed_model(SAVED, _config(0.1, "torch.optim.SGD"), "fit", Path("last.ckpt"))


@pytest.mark.parametrize("name", ["last", "best"])
def test_last_and_best_mean_files_of_the_run_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / f"{name}.ckpt"
    torch.save({}, file)
    assert resolve_checkpoint(name, tmp_path) == file
    assert resolve_checkpoint(str(file), None) == file


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`ckpt_path` must be a checkpoint\. Got 'best': no file"):
        resolve_checkpoint("best", tmp_path)


def test_the_last_checkpoint_of_no_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`ckpt_path` must be a file, unless .+ Got 'last'\."):
        resolve_checkpoint("last", None)

"""What settings of a data module fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_mtdqn.data.background import WHEN as WHEN_BACKGROUND
from lit_mtdqn.data.background import check_background
from lit_mtdqn.data.sampling import EveryTask
from lit_mtdqn.data.slots import is_acting
from lit_mtdqn.envs import check_device_form
from lit_mtdqn.replay import check_folder
from lit_mtdqn.rollout import EpsilonGreedy
from lit_mtdqn.types import require

if TYPE_CHECKING:
    from lit_mtdqn.data.datamodule import RolloutDataModule


def check_settings(data: RolloutDataModule, num_workers: int) -> None:
    """Refuse settings that do not fit, alone or together, before anything is built of them.

    Args:
        data: Of which all settings are set.
        num_workers: Lightning's, which a dataloader of its own would take.

    Raises:
        ValueError: If one does not fit; the message names it.
    """
    require(
        num_workers == 0,
        "num_workers",
        "be 0, because environments are played in this process",
        num_workers,
    )
    for name in (
        "num_envs",
        "phase_vector_steps",
        "batch_size",
        "replay_capacity",
        "eval_episodes",
        "test_episodes",
        "eval_max_steps",
    ):
        require(getattr(data, name) >= 1, name, "be at least 1", getattr(data, name))
    epsilon = data.eval_epsilon
    require(0.0 <= epsilon <= 1.0, "eval_epsilon", "lie in [0, 1]", epsilon)
    require(data.warmup_env_steps >= 0, "warmup_env_steps", "be at least 0", data.warmup_env_steps)
    require(data.replay_ratio > 0.0, "replay_ratio", "be above 0", data.replay_ratio)
    capacity = data.replay_capacity
    for name in ("warmup_env_steps", "batch_size"):
        value = getattr(data, name)
        require(capacity >= value, "replay_capacity", f"be at least `{name}` = {value}", capacity)
    if data.replay_storage == "disk" and data.replay_folder is not None:
        check_folder(data.replay_folder)
    if not data.keeps_replays:
        _check_without_replays(data)
    if data.device_resident:
        _check_on_device(data)
    if data.background:
        resident = data.device_resident
        require(not resident, "device_resident", f"be false {WHEN_BACKGROUND}", resident)
        _check_plain_acting(data, WHEN_BACKGROUND)
        check_background(data.tasks)
    _check_budget(data)


def _check_without_replays(data: RolloutDataModule) -> None:
    """Refuse what needs a replay, and updates that would leave something out."""
    steps, why = data.phase_vector_steps, "where `keeps_replays` is false"
    epochs = data.replay_ratio * data.batch_size
    nearest = max(round(epochs), 1)
    must = f"be {nearest / data.replay_ratio:g} or another whole multiple of 1 / `replay_ratio`"
    is_whole = abs(epochs - nearest) < 1e-6 * nearest
    require(is_whole, "batch_size", f"{must} {why}", data.batch_size)
    # An environment's every other row may be a reset row.
    require(steps >= 2, "phase_vector_steps", f"be at least 2 {why}", steps)
    require(data.prioritisation is None, "prioritisation", f"be null {why}", data.prioritisation)
    must = f"give every task its part {why}"
    require(type(data.sampler) is EveryTask, "sampler", must, type(data.sampler).__name__)
    for name, spec in data.tasks.items():
        require(spec.replay is None, f"tasks.{name}.replay", f"be null {why}", spec.replay)
        must = f"be 1 {why}, as returns are folded by the learner"
        require(spec.n_step == 1 or not spec.acts, f"tasks.{name}.n_step", must, spec.n_step)
        must = f"be {str(spec.learns).lower()}, as `learns` is, {why}"
        require(spec.acts == spec.learns, f"tasks.{name}.acts", must, spec.acts)
        must = f"be null {why}"
        key = spec.cumulants_key
        require(key is None, f"tasks.{name}.cumulants_key", must, key)


def _check_on_device(data: RolloutDataModule) -> None:
    """Refuse what would have to look at rows while they are played."""
    when = "where `device_resident` is true"
    storage = data.replay_storage
    require(storage == "device", "replay_storage", f"be device {when}", storage)
    _check_plain_acting(data, when)
    acting = {name: spec for name, spec in data.tasks.items() if is_acting(spec)}
    require(bool(acting), "tasks", f"hold a task that acts {when}", list(data.tasks))
    for name, spec in acting.items():
        check_device_form(name, spec)


def _check_plain_acting(data: RolloutDataModule, when: str) -> None:
    """Refuse what acts by more than the largest value, or looks at rows as they are played."""
    kept, is_plain = data.keeps_replays, type(data.exploration) is EpsilonGreedy
    require(kept, "keeps_replays", f"be true {when}", kept)
    require(is_plain, "boltzmann", f"be null {when}", type(data.exploration).__name__)
    steers = getattr(data.sampler, "steers", "updates")
    require(steers == "updates", "sampler.steers", f"be updates {when}", steers)


def _check_budget(data: RolloutDataModule) -> None:
    """Refuse a run that would not begin, and tasks that none is learned of."""
    steps, updates = data.total_env_steps, data.total_updates
    require(
        steps is not None or updates is not None,
        "total_env_steps",
        "be set, or `total_updates`",
        steps,
    )
    require(updates is None or updates >= 1, "total_updates", "be at least 1", updates)
    acting = sum(is_acting(spec) for spec in data.tasks.values())
    warmup = data.warmup_env_steps * acting
    require(
        steps is None or steps > warmup,
        "total_env_steps",
        f"exceed the warm-up of {warmup} env steps over {acting} task(s)",
        steps,
    )
    if acting == 0:
        require(updates is not None, "total_updates", "be set where no task acts", updates)
        require(steps is None, "total_env_steps", "be null where no task acts", steps)
    for name, spec in data.tasks.items():
        require(
            not spec.learns or spec.acts or spec.replay is not None,
            f"tasks.{name}.replay",
            "be a folder where a task learns but does not act",
            spec.replay,
        )
    learning = [name for name, spec in data.tasks.items() if spec.learns]
    require(bool(learning), "tasks", "hold a task that learns", list(data.tasks))
    used = {name: spec for name, spec in data.tasks.items() if spec.learns or is_acting(spec)}
    keys = {name: spec.cumulants_key for name, spec in used.items()}
    has_all = None not in keys.values() or set(keys.values()) == {None}
    require(has_all, "tasks", "all have a `cumulants_key`, or none", keys)

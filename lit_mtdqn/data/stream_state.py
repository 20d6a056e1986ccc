"""What a run is in the middle of between two phases: episodes, waiting steps, generators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lit_mtdqn.data.phases import PhaseSource
from lit_mtdqn.functional.packing import packed, unpacked
from lit_mtdqn.rollout import Collector

# Why episodes start anew, for the log.
CUT = "the run was stopped in the middle of a phase, or had several ranks"
CHANGED = "the run had other tasks, another `num_envs` or another kind of device"
BEHIND = "a process of its own plays them"
UNABLE = "their environments do not restore their state"


def stream_state(source: PhaseSource, collector: Collector) -> dict[str, Any]:
    """Return all that phases to come depend on, as checkpoints hold it; nothing within a phase.

    Replays, clock and scores are not in it.

    Args:
        source: Plays phases.
        collector: Steps its environments.
    """
    if not source.is_at_rest:
        return {}
    return {
        "tasks": list(source.statistics.tasks),
        "num_envs": source.statistics.num_envs,
        "device": collector.device_kind,
        "collector": collector.state_dict(),
        "source": packed(source.state_dict()),
    }


def continue_stream(
    state: Mapping[str, Any], source: PhaseSource, collector: Collector
) -> tuple[list[str], str]:
    """Let a stream go on where another one stood.

    Args:
        state: What `stream_state` has returned.
        source: Plays phases; its own stream is to start anew.
        collector: Steps its environments.

    Returns:
        The tasks whose episodes start anew, and why.
    """
    tasks, num_envs = list(source.statistics.tasks), source.statistics.num_envs
    own = collector.device_kind
    fits = (
        state.get("tasks") == tasks
        and state.get("num_envs") == num_envs
        # Older checkpoints do not say.
        and state.get("device", own) == own
    )
    if not fits:
        source.forget_episodes()
        return tasks, CHANGED if state else CUT
    goes_on = collector.load_state_dict(state["collector"])
    source.load_state_dict(unpacked(state["source"]), goes_on)
    return [task for task, kept in zip(tasks, goes_on, strict=True) if not kept], UNABLE

import json

from lit_mtdqn.types import Clock


def test_total_env_steps_is_the_sum_over_tasks() -> None:
    assert Clock({"left": 3, "right": 4}).total_env_steps == 7


def test_a_clock_without_tasks_has_made_no_env_steps() -> None:
    assert Clock().total_env_steps == 0


def test_a_saved_clock_continues_after_a_round_trip_through_json() -> None:
    first = Clock({"left": 3, "right": 4}, updates=5, phases=2, episodes={"left": 1})
    saved = json.dumps(first.state_dict())
    clock = Clock({"left": 0, "right": 0})
    clock.load_state_dict(json.loads(saved))
    assert clock == first


def test_a_saved_state_does_not_follow_the_running_clock() -> None:
    clock = Clock({"left": 3})
    saved = clock.state_dict()
    clock.env_steps["left"] = 9
    assert saved["env_steps"] == {"left": 3}


def test_added_tasks_start_at_zero_and_removed_ones_are_forgotten() -> None:
    clock = Clock({"kept": 1, "added": 1})
    counts = {"kept": 8, "removed": 9}
    clock.load_state_dict({"env_steps": counts, "updates": 2, "phases": 1, "episodes": counts})
    assert clock.env_steps == {"kept": 8, "added": 0}
    assert clock.episodes == {"kept": 8}


def test_loading_keeps_the_mapping_that_others_hold() -> None:
    clock = Clock({"left": 0})
    held = clock.env_steps
    clock.load_state_dict({"env_steps": {"left": 6}, "updates": 0, "phases": 0})
    assert held == {"left": 6}

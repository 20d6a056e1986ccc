"""Write the table of methods: what each is, how to say it, and what it was worth.

    python benchmarks/methods_table.py

reads the overlays of `configs/methods/` and the results of the studies, and writes
`configs/methods/README.md`. A gain is the difference of mean test scores to the study's control,
with the 95 % interval of Welch's t over seeds; time is the ratio of whole runs. What an update
costs is what `benchmarks/method_cost.py` has found. Of what starts from another run it says what
a stage of a sequence has come to.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml
from sequence_summary import catch_up_text, read_stages, share_text
from summary import HERE, RESULTS, Cell, gain_text, read_cells, relative_time

METHODS = Path("configs/methods")
SEQUENCES = Path("configs/sequences")
COSTS = RESULTS / "method_cost.csv"
COSTED_TASKS = "3"
# What the control has already.
DEFAULTS = ("popart",)
# Studies of overlays by the column that they fill.
SUITES = {
    "noisy driving": ("multitask/noisy_driving", "multitask/noisy_driving_values"),
    "short driving": ("multitask/driving_methods", "multitask/driving_policies"),
    "the same, fresh seeds": ("multitask/driving_methods_again",),
}
SHIFTS = {
    "shifted driving": ("transfer/shifted_driving",),
    "longer pole": ("transfer/shifted_cartpole",),
    "gathering": ("multitask/gathering",),
}
# Outside of what DQN and its family are known by, and no better than their control on any suite.
TRIED = {
    "aligned_mtl": "Gradients made orthogonal and equally long (Aligned-MTL, Senushkin et al. "
    "2023), which a class path still names: `torchjd.aggregation.AlignedMTL`.",
}
# Stages that show what a method is worth where it needs an earlier run.
STAGES = {
    **{
        distance: ("noisy_driving_students", distance)
        for distance in ("policy_kl", "nll", "value_kl", "mse", "softened_mse")
    },
    **{
        method: ("teaching", method)
        for method in ("actor_mimic", "attention_transfer", "teacher_acts")
    },
    **{
        method: ("transfer_methods", method)
        for method in (
            "gradual_unfreezing",
            "instance_transfer",
            "kickstarting",
            "shrink_and_perturb",
            "source_gradients",
            "source_gradients_cosine",
            "source_gradients_literal",
            "source_gradients_ungated",
        )
    },
    "ewc": ("forgetting_reordered", "ewc_lane_keeping"),
    "first_layers": ("layers", "first_layer"),
    "fine_tuning": ("pedestrian_to_light", "fine_tune"),
    "frozen_trunk": ("pedestrian_to_light", "frozen_trunk"),
    "head_only": ("pedestrian_to_light", "head_only"),
    "l2_sp": ("forgetting", "l2_sp_light"),
    "learning_without_forgetting": ("forgetting_reordered", "lwf_lane_keeping"),
    "online_ewc": ("forgetting", "online_ewc_light"),
    "progressive": ("pedestrian_to_light", "progressive"),
    "progressive_random": ("pedestrian_to_light", "random_column"),
    "qdagger": ("qdagger_cartpole", "online"),
    "rehearsal": ("forgetting_reordered", "rehearsal_lane_keeping"),
}
# What names tasks, and so fits in no overlay.
BY_TASK = {
    "data.tasks.<task>.weight=2.0": "A fixed weight of the task's loss.",
    "data.tasks.<task>.reward_clip=[-1, 1]": "Rewards clipped to bounds (Mnih et al. 2015).",
    "data.tasks.<task>.n_step=3": "Returns over several steps (Sutton 1988).",
    "data.sampler={class_path: lit_mtdqn.data.FixedShares, "
    "init_args: {shares: {<task>: 2, <others>: 1}}}": "Shares of rows or of env steps.",
}
EARLIER = ("What it takes from another run, and what stays", "What is learned from teachers")
WITHOUT_REWARDS = "What a task without rewards has of the others"
QUESTIONS = {
    EARLIER[0]: ("source", "parts", "replay", "SourceGradients"),
    EARLIER[1]: ("match", "teachers", "teacher_share"),
    "What tasks share": ("sharing", "torso", "prior"),
    WITHOUT_REWARDS: ("Align", "SuccessorTD"),
    "What is predicted, and its target": (
        *("head", "objective", "TargetNetworkSync", "DeepSupervision"),
    ),
    "How they share one update": ("balancer", "objectives"),
    "The scale of their values": ("scale",),
    "Which task is trained and played": ("sampler",),
    "How it explores and what it replays": ("boltzmann", "prioritisation", "callbacks+"),
}


def keys_of(tree: Any) -> set[str]:
    """Return all keys of nested mappings and lists, and the names of the classes that they name."""
    if isinstance(tree, list):
        return set().union(*(keys_of(value) for value in tree))
    if not isinstance(tree, dict):
        return set()
    named = {str(tree["class_path"]).rpartition(".")[2]} if "class_path" in tree else set()
    return named.union(tree, *(keys_of(value) for value in tree.values()))


def question_of(overlay: dict[str, Any]) -> str:
    """Return the question that an overlay answers: the first one whose keys it has."""
    found = keys_of(overlay)
    return next(question for question, keys in QUESTIONS.items() if found.intersection(keys))


def description_of(text: str) -> str:
    """Return the first comment of an overlay, up to its first full stop at a line's end."""
    lines = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    end = next(place for place, line in enumerate(lines, 1) if line.endswith("."))
    return " ".join(lines[:end])


@cache
def cells_of(name: str) -> tuple[dict[str, Cell], str]:
    """Return the cells of a study that have been run, and the name of its control."""
    study = yaml.safe_load((HERE / f"{name}.yaml").read_text())
    results = RESULTS / f"{name}.csv"
    cells = read_cells(results, study.get("tasks", ())) if results.is_file() else {}
    return cells, study.get("control", "hard_sharing")


def measured(cells: dict[str, Cell], control: str, name: str) -> str:
    """Return a method's gain over the control, its interval, seeds and time, or nothing."""
    if name in DEFAULTS:
        return "in the control"
    if name not in cells or control not in cells:
        return ""
    time = relative_time(cells[name], cells[control])
    seeds = f"{len(cells[name].scores)} seeds"
    return f"{gain_text(cells[name], cells[control])}, {seeds}, {time or 'time unknown'}"


def measured_in(studies: tuple[str, ...], name: str) -> str:
    """Return what the first study says that has the method, or nothing."""
    return next(filter(None, (measured(*cells_of(study), name) for study in studies)), "")


def stage_text(name: str) -> str:
    """Return what a stage has come to, as shares of the stages that its tasks are held against."""
    sequence, stage = STAGES.get(name, ("", ""))
    results = RESULTS / "transfer" / f"{sequence}.csv"
    if not results.is_file():
        return ""
    reference = yaml.safe_load((HERE / "transfer" / f"{sequence}.yaml").read_text())["reference"]
    found = read_stages(results)
    parts = []
    for task, by in reference.items():
        if rows := found.get((stage, task)):
            is_learned = next(iter(rows.values()))["role"] == "learns"
            caught_up = catch_up_text(rows) if is_learned else ""
            ending = f", catch-up {caught_up}" if caught_up else ""
            parts.append(f"{task} {share_text(rows, found[by, task])}{ending}")
    return f"`{sequence}` {stage}: {'; '.join(parts)}" if parts else ""


def columns_of(question: str) -> dict[str, Callable[[str], str]]:
    """Return what is said of the overlays that answer a question, by the column's name."""
    if question in EARLIER:
        return {"of its reference": stage_text}
    studies = SHIFTS if question == WITHOUT_REWARDS else SUITES
    return {name: partial(measured_in, paths) for name, paths in studies.items()}


def update_costs() -> dict[str, str]:
    """Return the ratio of an update's time to the control's, by overlay."""
    if not COSTS.is_file():
        return {}
    with COSTS.open(newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return {row["method"]: row["ratio"] for row in rows if row["tasks"] == COSTED_TASKS}


def table() -> list[str]:
    """Return the lines of the page."""
    costs = update_costs()
    texts = {path.stem: path.read_text() for path in sorted(METHODS.glob("*.yaml"))}
    by_question: dict[str, list[str]] = {question: [] for question in QUESTIONS}
    for name, text in texts.items():
        question = question_of(yaml.safe_load(text))
        found = [said(name) for said in columns_of(question).values()]
        cost = f"{costs[name]}x" if name in costs else ""
        fields = [f"`{name}.yaml`", description_of(text), cost, *found]
        by_question[question].append("| " + " | ".join(fields) + " |")
    lines = []
    for question, rows in by_question.items():
        names = ["overlay", "method", "update", *columns_of(question)]
        header = f"| {' | '.join(names)} |"
        lines += [f"## {question}", "", header, "|" + "---|" * len(names), *rows, ""]
    named = [f"| `--{argument}` | {method} |" for argument, method in BY_TASK.items()]
    header = "| argument | method |"
    lines += ["## What is said of single tasks", "", header, "|---|---|", *named, ""]
    return [*lines, *tried_rows(), *sequence_rows()]


def tried_rows() -> list[str]:
    """Return the section of what has gained nothing."""
    rows = []
    for name, method in TRIED.items():
        found = [measured_in(studies, name) for studies in SUITES.values()]
        rows.append(f"| {method} | {' | '.join(found)} |")
    header = f"| method | {' | '.join(SUITES)} |"
    line = "|" + "---|" * (1 + len(SUITES))
    return ["## What has been tried and left out", "", header, line, *rows, ""]


def sequence_rows() -> list[str]:
    """Return the section of what is learned in several runs."""
    rows = [
        f"| `{path.name}` | {description_of(path.read_text())} | {link_to(path.stem)} |"
        for path in sorted(SEQUENCES.glob("*.yaml"))
    ]
    command = "`lit-mtdqn sequence configs/sequences/<sequence>`"
    title = f"Runs that start from what earlier ones have learned: {command}."
    header = ["| sequence | method | results |", "|---|---|---|"]
    return ["## What is learned before", "", title, "", *header, *rows, ""]


def link_to(sequence: str) -> str:
    """Return a link to what a sequence has come to, or nothing."""
    page = RESULTS / "transfer" / f"{sequence}.md"
    return f"[stages](../../benchmarks/results/transfer/{page.name})" if page.is_file() else ""


def main() -> None:
    """Write the page."""
    head = [
        "# Methods",
        "",
        "Lay one over a run: `lit-mtdqn fit --config <run> --config configs/methods/<overlay>`.",
        "Gains are in the mean normalised score, over hard sharing with equal weights and",
        "PopArt on the same suite or over no adaptation, with the 95 % interval over seeds,",
        "their number and the time of a run as a multiple of the control's. What starts from",
        "another run is said as shares of reference stages: the median and range over seeds,",
        "and of the task that is learned the share of the env steps from scratch after which it",
        "has caught up. The time of an update, too, is a multiple of the control's, of a small",
        "network on three driving tasks (`benchmarks/method_cost.py`). This page is the output",
        "of `python benchmarks/methods_table.py`.",
        "",
    ]
    (METHODS / "README.md").write_text("\n".join([*head, *table()]))


if __name__ == "__main__":
    main()

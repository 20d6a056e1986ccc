"""Write the table of methods: what each is, how to say it, and what it was worth.

    python benchmarks/methods_table.py

reads the overlays of `configs/methods/` and the results of the studies, and writes
`configs/methods/README.md`. A gain is the difference of mean test scores to hard sharing on the
same suite, with the 95 % interval of Welch's t over seeds; time is the ratio of whole runs. What
an update costs is what `benchmarks/method_cost.py` has found.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import yaml
from summary import RESULTS, Cell, gain_text, read_cells, relative_time

METHODS = Path("configs/methods")
SEQUENCES = Path("configs/sequences")
CONTROL = "hard_sharing"
COSTS = RESULTS / "method_cost.csv"
COSTED_TASKS = "3"
# What the control has already.
DEFAULTS = ("popart",)
# Studies by the column that they fill.
STUDIES = {
    "noisy driving": ("multitask/noisy_driving", "multitask/noisy_driving_values"),
    "classic control": ("multitask/classic_control",),
}
# What names tasks, and so fits in no overlay.
BY_TASK = {
    "data.tasks.<task>.weight=2.0": "A fixed weight of the task's loss.",
    "data.tasks.<task>.reward_clip=[-1, 1]": "Rewards clipped to bounds (Mnih et al. 2015).",
    "data.tasks.<task>.n_step=3": "Returns over several steps (Sutton 1988).",
    "data.sampler={class_path: lit_mtdqn.data.FixedShares, "
    "init_args: {shares: {<task>: 2, <others>: 1}}}": "Shares of rows or of env steps.",
}
QUESTIONS = {
    "What it takes from another run, and what stays": ("source", "parts", "replay"),
    "What is learned from teachers": ("match", "teachers"),
    "What tasks share": ("sharing", "torso", "prior"),
    "What a task without rewards has of the others": ("Align",),
    "How they share one update": ("balancer", "objectives"),
    "What is predicted, and its target": ("head", "objective"),
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
    return lines[0] if lines[0].endswith(".") else f"{lines[0]} {lines[1]}"


def measured(cells: dict[str, Cell], name: str) -> str:
    """Return a method's gain over the control, its interval, seeds and time, or nothing."""
    if name in DEFAULTS:
        return "in the control"
    if name not in cells or CONTROL not in cells:
        return ""
    time = relative_time(cells[name], cells[CONTROL])
    seeds = f"{len(cells[name].scores)} seeds"
    return f"{gain_text(cells[name], cells[CONTROL])}, {seeds}, {time or 'time unknown'}"


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
    results = {
        suite: [read_cells(path) for s in studies if (path := RESULTS / f"{s}.csv").is_file()]
        for suite, studies in STUDIES.items()
    }
    texts = {path.stem: path.read_text() for path in sorted(METHODS.glob("*.yaml"))}
    by_question: dict[str, list[str]] = {question: [] for question in QUESTIONS}
    for name, text in texts.items():
        found = [
            next(filter(None, (measured(cells, name) for cells in studies)), "")
            for studies in results.values()
        ]
        cost = f"{costs[name]}x" if name in costs else ""
        fields = [f"`{name}.yaml`", description_of(text), cost, *found]
        by_question[question_of(yaml.safe_load(text))].append("| " + " | ".join(fields) + " |")
    lines = []
    for question, rows in by_question.items():
        header = f"| overlay | method | update | {' | '.join(results)} |"
        lines += [f"## {question}", "", header, "|" + "---|" * (3 + len(results)), *rows, ""]
    named = [f"| `--{argument}` | {method} |" for argument, method in BY_TASK.items()]
    header = "| argument | method |"
    lines += ["## What is said of single tasks", "", header, "|---|---|", *named, ""]
    return [*lines, *sequence_rows()]


def sequence_rows() -> list[str]:
    """Return the section of what is learned in several runs."""
    rows = [
        f"| `{path.name}` | {description_of(path.read_text())} |"
        for path in sorted(SEQUENCES.glob("*.yaml"))
    ]
    command = "`lit-mtdqn sequence configs/sequences/<sequence>`"
    title = f"Runs that start from what earlier ones have learned: {command}."
    header = ["| sequence | method |", "|---|---|"]
    return ["## What is learned before", "", title, "", *header, *rows, ""]


def main() -> None:
    """Write the page."""
    head = [
        "# Methods",
        "",
        "Lay one over a run: `lit-mtdqn fit --config <run> --config configs/methods/<overlay>`.",
        "Numbers are gains in the mean normalised score over hard sharing with equal weights and",
        "PopArt on the same suite, with the 95 % interval over seeds, their number, and the time",
        "of a run as a multiple of the control's. The time of an update, too, is a multiple of the",
        "control's, of a small network on three driving tasks (`benchmarks/method_cost.py`). This",
        "page is the output of `python benchmarks/methods_table.py`.",
        "",
    ]
    (METHODS / "README.md").write_text("\n".join([*head, *table()]))


if __name__ == "__main__":
    main()

"""What the stages of a sequence come to, over seeds.

- score: mean of the last network's test scores, with their range over seeds.
- of reference: the same as a share of the stage that the study's `reference` names for the task,
  seed by seed, as stages of one seed build on one another; median and range.
- agreement: how often a student does as its teacher would, mean over seeds.
- catch-up: median over seeds of the share of the env steps from scratch after which the asymptote
  there is reached; never if half of the seeds do not get there.
- jumpstart, transfer ratio: as `lit_mtdqn.analysis.transfer` defines them, medians over seeds.
- after 1, 5, 20 episodes: of training, means of the scores over the seeds where that can be told.
- parameters: of the network, heads of other tasks included.
- env steps: its own, and in brackets those of all stages that it builds on.

Columns that no stage has are left out. A stage that learns several tasks has a row of their means,
too: its share is that of the means.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path

import numpy as np

from lit_mtdqn.analysis.sequence_report import EPISODES

Rows = dict[int, dict[str, str]]
HEADER = ("stage", "task", "seeds", "score", "of reference", "agreement", "catch-up")
FURTHER = ("jumpstart", "transfer ratio", f"after {', '.join(map(str, EPISODES))} episodes")
COSTS = ("parameters", "env steps")
NEVER = "never"
UNKNOWN = "?"


def stage_table(path: Path, reference: Mapping[str, str]) -> list[str]:
    """Return the lines of a Markdown table, a row per stage and task.

    Args:
        path: The results of the study.
        reference: The stage that a task's scores are divided by.
    """
    found = read_stages(path)
    fields: list[list[str]] = []
    for stage in dict.fromkeys(stage for stage, _ in found):
        own = {task: rows for (name, task), rows in found.items() if name == stage}
        fields += stage_rows(stage, own, {t: found.get((reference.get(t, ""), t), {}) for t in own})
    names = (*HEADER, *FURTHER, *COSTS)
    told = [
        name not in FURTHER or any(column) for name, *column in zip(names, *fields, strict=True)
    ]
    lines = ["| " + " | ".join(compress(row, told)) + " |" for row in (names, *fields)]
    return [
        lines[0],
        "|" + "---|" * sum(told),
        *lines[1:],
        "",
        "(task): held out, not learned in the stage",
    ]


def stage_rows(stage: str, own: Mapping[str, Rows], by_task: Mapping[str, Rows]) -> list[list[str]]:
    """Return the fields of a stage's lines.

    Args:
        stage: Its name.
        own: Its rows by task.
        by_task: Those that they are divided by.
    """
    learned = [task for task, rows in own.items() if _is_learned(rows)]
    named = [(t if t in learned else f"({t})", rows, by_task[t]) for t, rows in own.items()]
    if len(learned) > 1:
        ours, theirs = ([found[task] for task in learned] for found in (own, by_task))
        named.append(("mean of these", mean_over_tasks(ours), mean_over_tasks(theirs)))
    return [
        [
            stage,
            told,
            str(len(rows)),
            score_text(rows),
            "" if by == rows else share_text(rows, by),
            _mean(rows, "agreement", ".3f"),
            catch_up_text(rows),
            _median(rows, "jumpstart"),
            _median(rows, "transfer_ratio"),
            after_episodes_text(rows),
            _mean(rows, "parameters", ",.0f"),
            f"{_mean(rows, 'env_steps', ',.0f')} ({_mean(rows, 'earlier_env_steps', ',.0f')})",
        ]
        for told, rows, by in named
    ]


def mean_over_tasks(tasks: Sequence[Rows]) -> Rows:
    """Return one row per seed that all tasks have: mean scores and agreement, costs of the first.

    What is told of a task's own curve has no mean.
    """
    found: Rows = {}
    for seed in set.intersection(*(set(rows) for rows in tasks)):
        each = [rows[seed] for rows in tasks]
        agreed = [row["agreement"] for row in each]
        found[seed] = {
            **each[0],
            "score": str(np.mean([float(row["score"]) for row in each])),
            "agreement": str(np.mean([float(one) for one in agreed])) if all(agreed) else "",
            **dict.fromkeys(("catch_up", "jumpstart", "transfer_ratio", "after_episodes"), ""),
        }
    return found


def _is_learned(rows: Rows) -> bool:
    return next(iter(rows.values()))["role"] == "learns"


def read_stages(path: Path) -> dict[tuple[str, str], Rows]:
    """Return the rows of every stage and task by seed."""
    found: dict[tuple[str, str], Rows] = defaultdict(dict)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found[row["cell"], row["task"]][int(row["seed"])] = row
    return found


def score_text(rows: Rows) -> str:
    """Return the mean score and its range."""
    scores = np.array([float(row["score"]) for row in rows.values()])
    return f"{scores.mean():.3f} ({scores.min():.3f} to {scores.max():.3f})"


def share_text(rows: Rows, reference: Rows) -> str:
    """Return scores as shares of those of the same seeds, or nothing where one has none above 0."""
    seeds = [seed for seed in rows if seed in reference]
    if not seeds or min(float(reference[seed]["score"]) for seed in seeds) <= 0.0:
        return ""
    ours, theirs = ([float(r[s]["score"]) for s in seeds] for r in (rows, reference))
    shares = np.array(ours) / np.array(theirs)
    return f"{np.median(shares):.3f} ({shares.min():.3f} to {shares.max():.3f})"


def catch_up_text(rows: Rows) -> str:
    """Return the median share of env steps, or nothing where there is no run from scratch.

    Where it had nothing to learn in some seeds, the number of the others is told.
    """
    texts = [row["catch_up"] for row in rows.values() if row["catch_up"]]
    if not texts:
        return ""
    shares = np.array([np.inf if text == NEVER else float(text) for text in texts])
    middle = float(np.median(shares))
    told = "" if len(texts) == len(rows) else f" ({len(texts)} of {len(rows)} seeds)"
    return (f"{middle:.2f}" if np.isfinite(middle) else NEVER) + told


def after_episodes_text(rows: Rows) -> str:
    """Return mean scores after few training episodes, or nothing where no seed can tell any."""
    texts = [text.split() for row in rows.values() if (text := row.get("after_episodes"))]
    counts = (
        [float(text) for text in column if text != UNKNOWN] for column in zip(*texts, strict=True)
    )
    return ", ".join(f"{np.mean(scores):.2f}" if scores else UNKNOWN for scores in counts)


def _median(rows: Rows, column: str) -> str:
    values = [float(text) for row in rows.values() if (text := row.get(column))]
    return f"{np.median(values):.2f}" if values else ""


def _mean(rows: Rows, column: str, form: str) -> str:
    values = [float(row[column]) for row in rows.values() if row[column]]
    return format(np.mean(values), form) if values else ""

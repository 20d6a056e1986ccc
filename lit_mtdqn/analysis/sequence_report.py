"""What a sequence of runs came to: scores after every stage, what was gained and forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from lit_mtdqn.analysis.csv_file import write_csv
from lit_mtdqn.analysis.heat_maps import stage_scores, transfer_gains
from lit_mtdqn.analysis.metrics_file import Curve, read_metrics
from lit_mtdqn.analysis.score_table import UNKNOWN, TaskResult, aligned
from lit_mtdqn.analysis.sequence_curves import Segment, sequence_curves
from lit_mtdqn.analysis.specialists import read_tests
from lit_mtdqn.analysis.transfer import (
    Gain,
    adaptation,
    backward_transfer,
    finished_episodes,
    forgetting,
    forward_transfer,
    gain,
    transfer_matrix,
)

Array = np.ndarray
PIXELS_PER_INCH = 200
EPISODES = (1, 5, 20)
LEARNS, HELD_OUT = "learns", "held_out"


@dataclass(frozen=True, kw_only=True)
class ReportedStage:
    """What a report needs to know of a stage, besides its folder.

    Attributes:
        name: Its name, and that of its folder.
        learned: Names of the tasks that it learns.
        acting: Those of them that it plays.
        parent: The stage whose weights it starts from, or None.
        against: The stage that learned the same from scratch, or None.
        num_envs: Environments of each task that are stepped together.
    """

    name: str
    learned: tuple[str, ...]
    acting: tuple[str, ...]
    parent: str | None = None
    against: str | None = None
    num_envs: int = 1


class Transferred(NamedTuple):
    """What a stage gained in a task; with `Gain` and adaptations the columns of `transfer.csv`."""

    run: str
    stage: str
    against: str
    task: str
    gain: Gain
    adapted: list[float | None]


class Retention(NamedTuple):
    """What became of the tasks of a chain of stages; the columns of `retention.csv`.

    Attributes:
        run: Folder of the sequence.
        chain: The stages, each of which starts from the one before it.
        forward_transfer: As `transfer.forward_transfer`, against scores of 0.
        backward_transfer: As `transfer.backward_transfer`.
        forgetting: As `transfer.forgetting`.
    """

    run: str
    chain: str
    forward_transfer: float | None
    backward_transfer: float | None
    forgetting: float | None


def report_sequence(roots: Sequence[Path], stages: Sequence[ReportedStage], folder: Path) -> str:
    """Write the report of a sequence, or of one for each of several seeds, and return its text.

    It goes into `report` of a folder: `scores.csv` (a row per sequence, stage and task: what the
    last network of the stage reaches in its test), `scores.png` (their means as a heat map) and
    `curves.png` (scores over the env steps of all stages); for stages that are compared with one
    from scratch, `transfer.csv` and `transfer.png` (transfer ratios by what was learned first and
    then); for stages that start from others, `retention.csv` (forward transfer, backward transfer
    and forgetting of a chain).

    Args:
        roots: Folders of the sequences, whose stages are all finished.
        stages: The stages.
        folder: Where the folder `report` is made.
    """
    target = folder / "report"
    target.mkdir(parents=True, exist_ok=True)
    tests = {(r, s.name): read_tests(str(r / s.name)) for r in roots for s in stages}
    metrics = {(r, s.name): _metrics(r / s.name) for r in roots for s in stages}
    tasks = list(dict.fromkeys(row["task"] for rows in tests.values() for row in rows))
    scores = np.array([[_scores(tests[root, s.name], tasks) for s in stages] for root in roots])
    header = ("run", "stage", "role", *TaskResult._fields)
    write_csv(target / "scores.csv", header, _score_rows(tests, stages))
    learned = np.array([[task in stage.learned for task in tasks] for stage in stages])
    names = [stage.name for stage in stages]
    means = scores.mean(0)
    _save(stage_scores(means, learned, names, tasks), target / "scores.png")
    if any(name.startswith("val/score/") for found in metrics.values() for name in found):
        _save(sequence_curves(_segments(roots, stages, metrics), tasks), target / "curves.png")
    gains = [row for root in roots for row in _gains(root, stages, metrics)]
    if gains:
        _write_gains(target, gains, stages)
    kept = [
        row
        for root, table in zip(roots, scores, strict=True)
        for row in _retentions(root.name, stages, tasks, table)
    ]
    if kept:
        write_csv(target / "retention.csv", Retention._fields, kept)
    texts = [_score_text(means, learned, names, tasks), _gain_text(gains), _kept_text(kept)]
    return "\n\n".join([*filter(None, texts), f"Report: {target}"])


def chains(stages: Sequence[ReportedStage]) -> list[list[ReportedStage]]:
    """Return the stages that follow one another by their weights, up to each that none follows."""
    by_name = {stage.name: stage for stage in stages}
    parents = {stage.parent for stage in stages}
    found = []
    for last in (stage for stage in stages if stage.name not in parents):
        chain = [last]
        while chain[0].parent is not None:
            chain.insert(0, by_name[chain[0].parent])
        found.append(chain)
    return found


def _metrics(folder: Path) -> dict[str, Curve]:
    file = folder / "metrics.csv"
    return read_metrics(file) if file.is_file() else {}


def _scores(rows: Sequence[Mapping[str, str]], tasks: Sequence[str]) -> list[float]:
    by_task = {row["task"]: float(row["score"]) for row in rows}
    return [by_task.get(task, np.nan) for task in tasks]


def _score_rows(
    tests: Mapping[tuple[Path, str], Sequence[Mapping[str, str]]], stages: Sequence[ReportedStage]
) -> Iterator[Sequence[Any]]:
    learned = {stage.name: stage.learned for stage in stages}
    for (root, name), rows in tests.items():
        for row in rows:
            role = LEARNS if row["task"] in learned[name] else HELD_OUT
            yield [root.name, name, role, *(row[field] for field in TaskResult._fields)]


def _segments(
    roots: Sequence[Path],
    stages: Sequence[ReportedStage],
    metrics: Mapping[tuple[Path, str], Mapping[str, Curve]],
) -> list[Segment]:
    """Return the stages, each after the one that it starts from; a control beside its stage."""
    begins: dict[str, int] = {}
    lengths = {s.name: max(_last_step(metrics[r, s.name]) for r in roots) for s in stages}
    for stage in stages:
        parent = stage.parent
        begins[stage.name] = 0 if parent is None else begins[parent] + lengths[parent]
    parents = {stage.parent for stage in stages}
    compared = {stage.against: stage.name for stage in stages if stage.against is not None}
    segments = []
    for stage in stages:
        is_control = stage.name in compared and stage.parent is None and stage.name not in parents
        begin = begins[compared[stage.name]] if is_control else begins[stage.name]
        curves: dict[str, list[Curve]] = {}
        for root in roots:
            for name, curve in metrics[root, stage.name].items():
                if name.startswith("val/score/"):
                    curves.setdefault(name.removeprefix("val/score/"), []).append(curve)
        end = begin + lengths[stage.name]
        segments.append(Segment(stage.name, begin, end, curves, stage.learned, is_control))
    return segments


def _last_step(metrics: Mapping[str, Curve]) -> int:
    return max((int(curve.env_steps[-1]) for curve in metrics.values()), default=0)


def _gains(
    root: Path,
    stages: Sequence[ReportedStage],
    metrics: Mapping[tuple[Path, str], Mapping[str, Curve]],
) -> Iterator[Transferred]:
    by_name = {stage.name: stage for stage in stages}
    for stage in stages:
        if stage.against is None:
            continue
        ours, theirs = metrics[root, stage.name], metrics[root, stage.against]
        for task in stage.learned:
            name = f"val/score/{task}"
            if task in by_name[stage.against].learned and name in ours and name in theirs:
                adapted = _adapted(stage, task, ours)
                found = gain(ours[name], theirs[name])
                yield Transferred(root.name, stage.name, stage.against, task, found, adapted)


def _adapted(stage: ReportedStage, task: str, metrics: Mapping[str, Curve]) -> list[float | None]:
    """Return scores after few episodes; env steps of one task alone can be told from the clock."""
    length = metrics.get(f"rollout/episode_length/{task}")
    if stage.acting != (task,) or length is None:
        return [None for _ in EPISODES]
    episodes = finished_episodes(length, stage.num_envs)
    return adaptation(metrics[f"val/score/{task}"], episodes, EPISODES)


def _write_gains(
    target: Path, gains: Sequence[Transferred], stages: Sequence[ReportedStage]
) -> None:
    header = ["run", "stage", "against", "task", *Gain._fields]
    rows = [[*row[:4], *row.gain, *row.adapted] for row in gains]
    write_csv(target / "transfer.csv", [*header, *(f"after_{n}_episodes" for n in EPISODES)], rows)
    sources = _source_labels(gains, stages)
    pairs: dict[tuple[str, str], list[float]] = {}
    for row in gains:
        if row.stage in sources and row.gain.transfer_ratio is not None:
            pairs.setdefault((sources[row.stage], row.task), []).append(row.gain.transfer_ratio)
    if pairs:
        firsts, thens = (list(dict.fromkeys(names)) for names in zip(*pairs, strict=True))
        means = {pair: float(np.mean(ratios)) for pair, ratios in pairs.items()}
        table = transfer_matrix(means, firsts, thens)
        _save(transfer_gains(table, firsts, thens), target / "transfer.png")


def _source_labels(gains: Sequence[Transferred], stages: Sequence[ReportedStage]) -> dict[str, str]:
    """Return what was learned first by stage; with its name where several would share a cell."""
    by_name = {stage.name: stage for stage in stages}
    labels = {
        stage.name: " + ".join(by_name[stage.parent].learned)
        for stage in stages
        if stage.parent is not None
    }
    cells = {(row.stage, row.task) for row in gains if row.stage in labels}
    count = Counter((labels[stage], task) for stage, task in cells)
    shared = {stage for stage, task in cells if count[labels[stage], task] > 1}
    return {name: f"{of} ({name})" if name in shared else of for name, of in labels.items()}


def _retentions(
    run: str, stages: Sequence[ReportedStage], tasks: Sequence[str], scores: Array
) -> Iterator[Retention]:
    places = {stage.name: place for place, stage in enumerate(stages)}
    for chain in chains(stages):
        rows = scores[[places[stage.name] for stage in chain]]
        firsts = {
            task: next(place for place, stage in enumerate(chain) if task in stage.learned)
            for stage in chain
            for task in stage.learned
        }
        columns = [tasks.index(task) for task in firsts if task in tasks]
        known = [column for column in columns if not np.isnan(rows[:, column]).any()]
        if len(chain) > 1 and known:
            table, own = rows[:, known], [firsts[tasks[column]] for column in known]
            yield Retention(
                run,
                " > ".join(stage.name for stage in chain),
                forward_transfer(table, own),
                backward_transfer(table, own),
                forgetting(table, own),
            )


def _score_text(scores: Array, learned: Array, stages: Sequence[str], tasks: Sequence[str]) -> str:
    rows = [
        [stage, *(_number(s) + ("*" if own else " ") for s, own in zip(*row, strict=True))]
        for stage, *row in zip(stages, scores, learned, strict=True)
    ]
    header = ["score after stage", *(f"{task} " for task in tasks)]
    return "\n".join([*_ruled([header, *rows]), "* learned in the stage"])


def _gain_text(gains: Sequence[Transferred]) -> str | None:
    if not gains:
        return None
    header = ["stage", "task", "jumpstart", "area ratio", "env steps", "scratch", "asymptote"]
    header = [*header, "scratch"]
    pairs = dict.fromkeys((row.stage, row.task) for row in gains)
    rows = []
    for stage, task in pairs:
        found = [row.gain for row in gains if (row.stage, row.task) == (stage, task)]
        values = [
            _mean_text([one.jumpstart for one in found]),
            _mean_text([one.area_ratio for one in found]),
            _steps_text([one.steps for one in found]),
            _steps_text([one.scratch_steps for one in found]),
            _mean_text([one.asymptote for one in found]),
            _mean_text([one.scratch_asymptote for one in found]),
        ]
        rows.append([stage, task, *values])
    return "\n".join([*_ruled([header, *rows]), "env steps: until the task counts as learned"])


def _kept_text(kept: Sequence[Retention]) -> str | None:
    if not kept:
        return None
    names = Retention._fields[2:]
    rows = []
    for chain in dict.fromkeys(row.chain for row in kept):
        found = [row for row in kept if row.chain == chain]
        rows.append([chain, *(_mean_text([getattr(row, name) for row in found]) for name in names)])
    return "\n".join(_ruled([["stages", *(name.replace("_", " ") for name in names)], *rows]))


def _ruled(rows: Sequence[Sequence[str]]) -> list[str]:
    header, *lines = aligned(rows)
    return [header, "-" * len(header), *lines]


def _mean_text(values: Sequence[float | None]) -> str:
    """Return a mean over runs; if some run has no value there is none."""
    return UNKNOWN if None in values else _number(float(np.mean(np.array(values, np.float64))))


def _steps_text(values: Sequence[int | None]) -> str:
    """Return a mean over the runs that got there, and how many of all these are."""
    reached = [value for value in values if value is not None]
    if not reached:
        return "never"
    of_all = "" if len(reached) == len(values) else f" ({len(reached)} of {len(values)} runs)"
    return f"{np.mean(reached):.0f}{of_all}"


def _number(value: float) -> str:
    return UNKNOWN if np.isnan(value) else f"{value:.3f}"


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=PIXELS_PER_INCH)

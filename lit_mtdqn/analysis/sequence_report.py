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
    asymptote,
    at_own_steps,
    backward_transfer,
    forgetting,
    forward_transfer,
    gain,
    transfer_matrix,
)
from lit_mtdqn.analysis.whole_files import whole_file

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
        scored: Names of the tasks whose scores mean the same everywhere: success, or by a range.
        parents: The stages whose weights it starts from, all of them or the best one.
        against: The stage that learned the same from scratch, or None.
    """

    name: str
    learned: tuple[str, ...]
    scored: tuple[str, ...]
    parents: tuple[str, ...] = ()
    against: str | None = None

    @property
    def parent(self) -> str | None:
        """The one stage whose weights it starts from, or None if there are none or several."""
        return self.parents[0] if len(self.parents) == 1 else None


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
        tasks: The tasks that it is told of: learned in the chain, tested after each of its stages,
            and with scores that are no raw returns.
        forward_transfer: As `transfer.forward_transfer`, against what the first stage's network was
            worth before it learned.
        backward_transfer: As `transfer.backward_transfer`.
        forgetting: As `transfer.forgetting`.
    """

    run: str
    chain: str
    tasks: str
    forward_transfer: float | None
    backward_transfer: float | None
    forgetting: float | None


def report_sequence(roots: Sequence[Path], stages: Sequence[ReportedStage], folder: Path) -> str:
    """Write the report of a sequence, or of one for each of several seeds, and return its text.

    It goes into `report` of a folder: `scores.csv` (a row per sequence, stage and task: what the
    last network of the stage reaches in its test, and of students how often they do as their
    teacher would), `scores.png` (their means as a heat map) and `curves.png` (scores over the env
    steps of all stages); for stages that are compared with one from scratch, `transfer.csv` and
    `transfer.png` (transfer ratios by what was learned first and then); for stages that start from
    others, `retention.csv` (forward transfer, backward transfer and forgetting of a chain).

    A stage counts where it is finished: means are over the runs that have a value, and say of how
    many. Env steps of `transfer.csv` are those of the task alone.

    Args:
        roots: Folders of the sequences.
        stages: The stages, at least one of which is finished.
        folder: Where the folder `report` is made.
    """
    target = folder / "report"
    target.mkdir(parents=True, exist_ok=True)
    tests = {(r, s.name): read_tests(str(r / s.name)) for r in roots for s in stages}
    metrics = {place: _metrics(place[0] / place[1]) if tests[place] else {} for place in tests}
    tasks = list(dict.fromkeys(row["task"] for rows in tests.values() for row in rows))
    scores = np.array([[_scores(tests[root, s.name], tasks) for s in stages] for root in roots])
    header = ("run", "stage", "role", *TaskResult._fields, "agreement")
    write_csv(target / "scores.csv", header, _score_rows(tests, stages, metrics))
    learned = np.array([[task in stage.learned for task in tasks] for stage in stages])
    names = [stage.name for stage in stages]
    means = _means(scores)
    _save(stage_scores(means, learned, names, tasks), target / "scores.png")
    if any(name.startswith("val/score/") for found in metrics.values() for name in found):
        _save(sequence_curves(_segments(roots, stages, metrics), tasks), target / "curves.png")
    gains = [row for root in roots for row in _gains(root, stages, metrics)]
    if gains:
        _write_gains(target, gains, stages)
    kept = [
        row
        for root, table in zip(roots, scores, strict=True)
        for row in _retentions(root, stages, tasks, table, metrics)
    ]
    if kept:
        write_csv(target / "retention.csv", Retention._fields, kept)
    texts = [
        _score_text(means, learned, names, tasks),
        _missing_text(tests),
        _agreement_text(roots, stages, metrics),
        _gain_text(gains),
        _adapted_text(gains),
        _kept_text(kept),
    ]
    return "\n\n".join([*filter(None, texts), f"Report: {target}"])


def chains(stages: Sequence[ReportedStage]) -> list[list[ReportedStage]]:
    """Return the stages that follow one another by their weights, up to each that none follows.

    One that starts from several stages begins a chain.
    """
    by_name = {stage.name: stage for stage in stages}
    parents = {parent for stage in stages for parent in stage.parents}
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
    tests: Mapping[tuple[Path, str], Sequence[Mapping[str, str]]],
    stages: Sequence[ReportedStage],
    metrics: Mapping[tuple[Path, str], Mapping[str, Curve]],
) -> Iterator[Sequence[Any]]:
    learned = {stage.name: stage.learned for stage in stages}
    for (root, name), rows in tests.items():
        for row in rows:
            role = LEARNS if row["task"] in learned[name] else HELD_OUT
            agreed = _agreement(metrics[root, name], row["task"])
            yield [root.name, name, role, *(row[field] for field in TaskResult._fields), agreed]


def _agreement(metrics: Mapping[str, Curve], task: str) -> float | None:
    """Return how often a student does as its teacher would, over the last tenth of its run."""
    curve = metrics.get(f"train/agreement/{task}")
    return None if curve is None else asymptote(curve)


def _segments(
    roots: Sequence[Path],
    stages: Sequence[ReportedStage],
    metrics: Mapping[tuple[Path, str], Mapping[str, Curve]],
) -> list[Segment]:
    """Return the stages, each after the one that it starts from; a control beside its stage."""
    begins: dict[str, int] = {}
    lengths = {s.name: max(_last_step(metrics[r, s.name]) for r in roots) for s in stages}
    for stage in stages:
        ends = [begins[parent] + lengths[parent] for parent in stage.parents]
        begins[stage.name] = max(ends, default=0)
    parents = {parent for stage in stages for parent in stage.parents}
    compared = {stage.against: stage.name for stage in stages if stage.against is not None}
    segments = []
    for stage in stages:
        is_used = bool(stage.parents) or stage.name in parents
        is_control = stage.name in compared and not is_used
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
                curves = (
                    at_own_steps(found[name], found.get(f"rollout/env_steps/{task}"))
                    for found in (ours, theirs)
                )
                adapted = after_few_episodes(task, ours)
                found = gain(*curves)
                if task not in set(stage.scored).intersection(by_name[stage.against].scored):
                    # Areas under raw returns, which begin anywhere, have no ratio.
                    found = found._replace(area_ratio=None, transfer_ratio=None)
                yield Transferred(root.name, stage.name, stage.against, task, found, adapted)


def after_few_episodes(task: str, metrics: Mapping[str, Curve]) -> list[float | None]:
    """Return the scores of a task after `EPISODES` of training, None where that cannot be told."""
    episodes = metrics.get(f"rollout/episodes/{task}")
    if episodes is None:
        return [None for _ in EPISODES]
    return adaptation(metrics[f"val/score/{task}"], episodes, EPISODES)


def _write_gains(
    target: Path, gains: Sequence[Transferred], stages: Sequence[ReportedStage]
) -> None:
    header = ["run", "stage", "against", "task", *Gain._fields]
    rows = [[*row[:4], *row.gain, *row.adapted] for row in gains]
    write_csv(target / "transfer.csv", [*header, *(f"after_{n}_episodes" for n in EPISODES)], rows)
    sources = _source_labels(gains, stages)
    pairs: dict[tuple[str, str], list[float | None]] = {}
    for row in gains:
        if row.stage in sources:
            pairs.setdefault((sources[row.stage], row.task), []).append(row.gain.transfer_ratio)
    # A picture cannot say of how many runs a mean is.
    means = {
        pair: float(np.mean(np.array(found, np.float64)))
        for pair, found in pairs.items()
        if None not in found
    }
    if means:
        firsts, thens = (list(dict.fromkeys(names)) for names in zip(*means, strict=True))
        table = transfer_matrix(means, firsts, thens)
        _save(transfer_gains(table, firsts, thens), target / "transfer.png")


def _source_labels(gains: Sequence[Transferred], stages: Sequence[ReportedStage]) -> dict[str, str]:
    """Return what was learned first by stage; with its name where several would share a cell."""
    by_name = {stage.name: stage for stage in stages}
    labels = {
        stage.name: " | ".join(" + ".join(by_name[name].learned) for name in stage.parents)
        for stage in stages
        if stage.parents
    }
    cells = {(row.stage, row.task) for row in gains if row.stage in labels}
    count = Counter((labels[stage], task) for stage, task in cells)
    shared = {stage for stage, task in cells if count[labels[stage], task] > 1}
    return {name: f"{of} ({name})" if name in shared else of for name, of in labels.items()}


def _retentions(
    root: Path,
    stages: Sequence[ReportedStage],
    tasks: Sequence[str],
    scores: Array,
    metrics: Mapping[tuple[Path, str], Mapping[str, Curve]],
) -> Iterator[Retention]:
    places = {stage.name: place for place, stage in enumerate(stages)}
    for chain in chains(stages):
        rows = scores[[places[stage.name] for stage in chain]]
        firsts = {
            task: next(place for place, stage in enumerate(chain) if task in stage.learned)
            for stage in chain
            for task in stage.learned
        }
        scored = set.intersection(*(set(stage.scored) for stage in chain))
        columns = [tasks.index(task) for task in firsts if task in scored.intersection(tasks)]
        known = [column for column in columns if not np.isnan(rows[:, column]).any()]
        if len(chain) > 1 and known:
            table, own = rows[:, known], [firsts[tasks[column]] for column in known]
            names = [tasks[column] for column in known]
            initial = _initial_scores(chain[0], names, metrics[root, chain[0].name])
            yield Retention(
                root.name,
                " > ".join(stage.name for stage in chain),
                " ".join(names),
                None if initial is None else forward_transfer(table, own, initial),
                backward_transfer(table, own),
                forgetting(table, own),
            )


def _initial_scores(
    stage: ReportedStage, tasks: Sequence[str], metrics: Mapping[str, Curve]
) -> Array | None:
    """Return what a stage's network scored before anything was learned, or None if it is unknown.

    It was evaluated then by `InitialEvaluation`.
    """
    curves = [metrics.get(f"val/score/{task}") for task in tasks]
    begin = [curve.values[0] for curve in curves if curve is not None and curve.env_steps[0] == 0]
    is_known = not stage.parents and len(begin) == len(tasks)
    return np.array(begin) if is_known else None


def _means(scores: Array) -> Array:
    """Return means over the runs that have a score, [stages, tasks]; NaN where none has."""
    known = ~np.isnan(scores)
    total = np.where(known, scores, 0.0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)


def _missing_text(tests: Mapping[tuple[Path, str], Sequence[Any]]) -> str | None:
    missing = [f"{root.name}/{stage}" for (root, stage), rows in tests.items() if not rows]
    return f"Not finished: {', '.join(missing)}" if missing else None


def _score_text(scores: Array, learned: Array, stages: Sequence[str], tasks: Sequence[str]) -> str:
    rows = [
        [stage, *(_number(s) + ("*" if own else " ") for s, own in zip(*row, strict=True))]
        for stage, *row in zip(stages, scores, learned, strict=True)
    ]
    header = ["score after stage", *(f"{task} " for task in tasks)]
    return "\n".join([*_ruled([header, *rows]), "* learned in the stage"])


def _agreement_text(
    roots: Sequence[Path],
    stages: Sequence[ReportedStage],
    metrics: Mapping[tuple[Path, str], Mapping[str, Curve]],
) -> str | None:
    rows = []
    for name, task in ((stage.name, task) for stage in stages for task in stage.learned):
        found = [_agreement(metrics[root, name], task) for root in roots]
        if any(value is not None for value in found):
            rows.append([name, task, _mean_text(found)])
    return "\n".join(_ruled([["student", "task", "agreement"], *rows])) if rows else None


def _gain_text(gains: Sequence[Transferred]) -> str | None:
    if not gains:
        return None
    header = ["stage", "task", "jumpstart", "area ratio", "env steps", "scratch env steps"]
    header += ["asymptote", "scratch asymptote"]
    rows = []
    for (stage, task), own in _by_stage_and_task(gains).items():
        found = [row.gain for row in own]
        values = [
            _mean_text([one.jumpstart for one in found]),
            _mean_text([one.area_ratio for one in found]),
            _mean_text([one.steps for one in found], "never", 0),
            _mean_text([one.scratch_steps for one in found], "never", 0),
            _mean_text([one.asymptote for one in found]),
            _mean_text([one.scratch_asymptote for one in found]),
        ]
        rows.append([stage, task, *values])
    note = (
        "env steps: of the task itself, until it counts as learned; never, too, where it is not "
        "played, or not learned from scratch"
    )
    return "\n".join([*_ruled([header, *rows]), note])


def _by_stage_and_task(
    gains: Sequence[Transferred],
) -> dict[tuple[str, str], list[Transferred]]:
    found: dict[tuple[str, str], list[Transferred]] = {}
    for row in gains:
        found.setdefault((row.stage, row.task), []).append(row)
    return found


def _adapted_text(gains: Sequence[Transferred]) -> str | None:
    rows = []
    for (stage, task), own in _by_stage_and_task(gains).items():
        found = [row.adapted for row in own]
        if any(value is not None for values in found for value in values):
            rows.append([stage, task, *(_mean_text(values) for values in zip(*found, strict=True))])
    if not rows:
        return None
    return "\n".join(_ruled([["score after episodes", "task", *map(str, EPISODES)], *rows]))


def _kept_text(kept: Sequence[Retention]) -> str | None:
    if not kept:
        return None
    names = Retention._fields[3:]
    rows = []
    for chain in dict.fromkeys(row.chain for row in kept):
        found = [row for row in kept if row.chain == chain]
        rows.append([chain, *(_mean_text([getattr(row, name) for row in found]) for name in names)])
    return "\n".join(_ruled([["stages", *(name.replace("_", " ") for name in names)], *rows]))


def _ruled(rows: Sequence[Sequence[str]]) -> list[str]:
    header, *lines = aligned(rows)
    return [header, "-" * len(header), *lines]


def _mean_text(values: Sequence[float | None], none: str = UNKNOWN, digits: int = 3) -> str:
    """Return a mean over the runs that have a value, and of how many of all it is."""
    known = [value for value in values if value is not None]
    if not known:
        return none
    of_all = "" if len(known) == len(values) else f" ({len(known)} of {len(values)} runs)"
    return f"{np.mean(known):.{digits}f}{of_all}"


def _number(value: float) -> str:
    return UNKNOWN if np.isnan(value) else f"{value:.3f}"


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as fresh:
        figure.savefig(fresh, format="png", dpi=PIXELS_PER_INCH)

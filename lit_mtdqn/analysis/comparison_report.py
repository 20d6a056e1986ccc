"""One page that says how several runs, or one, turned out."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lit_mtdqn.analysis.comparison import Standing, compare_methods, standings
from lit_mtdqn.analysis.csv_file import write_csv
from lit_mtdqn.analysis.found_methods import SEED, find_methods
from lit_mtdqn.analysis.found_runs import FoundRun, common_tasks, score_matrix
from lit_mtdqn.analysis.html_page import details, image, page, png, table
from lit_mtdqn.analysis.own_reports import compression_tables, own_pictures
from lit_mtdqn.analysis.panels import LOOKS, readable_steps, readable_value
from lit_mtdqn.analysis.plots import method_curves
from lit_mtdqn.analysis.run_search import CONFIG
from lit_mtdqn.analysis.verdicts import interval_text, listed, span, verdict, warnings
from lit_mtdqn.analysis.whole_files import whole_file

Array = np.ndarray
Methods = Mapping[str, Sequence[FoundRun]]
# Not `scores.csv`, which a sequence has in its own report.
PAGE, SCORES = "report.html", "run_scores.csv"
LEARNING, COMPARISON = "learning.png", "comparison.png"
ONE_RUN = "one run"
NAMED = 4  # methods or tasks of a headline, at most
CURVES = (
    "Evaluations while networks learned: median, range over runs and, thin, each run. Numbers "
    "above a panel are medians of the last evaluation; tables have the test after it, if there was "
    "one"
)
COMPARED = (
    "Left: the mean of the middle half of all scores of runs and tasks. Right: the share of these "
    "scores that is higher than the one below it. Scores are those of the tables, of the last "
    "network of each run; bars and bands are 95 % bootstrap intervals over runs, of which a single "
    "run has none"
)


def report_runs(sources: Sequence[str], folder: Path | None, title: str | None, name: str) -> Path:
    """Write `report.html` about runs, with `run_scores.csv` and PNGs, and return the page's path.

    The page holds all it shows: what is best, by interquartile mean with an interval over runs;
    each task's scores; learning curves; a performance profile; what repeats each run. Its figures
    lie beside it, too: `learning.png` and, of several runs, `comparison.png`. Runs may be going on,
    and are then judged by their last evaluation.

    Args:
        sources: As `find_methods` takes them.
        folder: Where to write; None is `report` in the folder that all runs have in common.
        title: Headline of the page; None names methods and tasks.
        name: What the user calls the sources, for complaints.

    Raises:
        ValueError: If a source holds no run, or they have no task in common.

    References:
        Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice".
    """
    methods, left_out = find_methods(sources, name)
    tasks = common_tasks(methods, name)
    scores = {method: score_matrix(runs, tasks) for method, runs in methods.items()}
    order = standings(scores, np.random.default_rng(0), whole_runs=True)
    methods = {method: methods[method] for method in order}
    every = [*left_out, *(run for runs in methods.values() for run in runs)]
    target = _common_folder(every) / "report" if folder is None else folder
    target.mkdir(parents=True, exist_ok=True)
    write_csv(
        target / SCORES, ("method", "run", "task", "score", "of"), _score_rows(methods, tasks)
    )
    drawn = _figures(methods, tasks)
    for file, (picture, _) in drawn.items():
        _write(target / file, picture)
    headline = _headline(methods, tasks) if title is None else title
    content = _page(headline, methods, tasks, order, left_out, drawn)
    _write(target / PAGE, content.encode())
    return target / PAGE


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as fresh:
        fresh.write_bytes(content)


def _figures(methods: Methods, tasks: Sequence[str]) -> dict[str, tuple[bytes, str]]:
    """Return PNGs and the words below them, by the names of their files."""
    shown = dict(list(methods.items())[: len(LOOKS)])
    left_out = len(methods) - len(shown)
    note = f". Without the last {_count(left_out, 'method')} of the tables" if left_out else ""
    curves = {method: [run.metrics for run in runs] for method, runs in shown.items()}
    ranges = {t: r for t, r in next(iter(methods.values()))[0].score_ranges.items() if t in tasks}
    figures = {LEARNING: (png(method_curves(curves, ranges)), CURVES + note)}
    if len(methods) > 1 or len(next(iter(methods.values()))) > 1:
        scores = {method: score_matrix(runs, tasks) for method, runs in shown.items()}
        figures[COMPARISON] = (png(compare_methods(scores, whole_runs=True)), COMPARED + note)
    return figures


def _headline(methods: Methods, tasks: Sequence[str]) -> str:
    compared = list(methods) if len(methods) <= NAMED else [_count(len(methods), "method")]
    learned = tasks if len(tasks) <= NAMED else [_count(len(tasks), "task")]
    return f"{listed(compared)} on {listed(learned)}"


def _common_folder(runs: Sequence[FoundRun]) -> Path:
    first, *others = [run.folder.resolve() for run in runs]
    return next(
        path for path in (first, *first.parents) if all(o.is_relative_to(path) for o in others)
    )


def _score_rows(methods: Methods, tasks: Sequence[str]) -> Iterable[Sequence[object]]:
    for method, runs in methods.items():
        for run in runs:
            of = "test" if run.is_tested else "evaluation"
            yield from ((method, run.folder, task, run.scores[task], of) for task in tasks)


def _page(
    title: str,
    methods: Methods,
    tasks: Sequence[str],
    order: Mapping[str, Standing],
    left_out: Sequence[FoundRun],
    drawn: Mapping[str, tuple[bytes, str]],
) -> str:
    parts = [
        *(f"<p>{sentence}</p>" for sentence in _answers(methods, tasks, order)),
        _left_out(left_out),
        "<h2>Methods</h2>",
        _method_table(methods, tasks, order),
        "<h2>Tasks: mean score, lowest to highest run</h2>",
        _task_table(methods, tasks),
        "<h2>Learning</h2>",
        image(*drawn[LEARNING]),
    ]
    if COMPARISON in drawn:
        parts += ["<h2>How sure is that?</h2>", image(*drawn[COMPARISON])]
    parts += [*own_pictures(methods), *compression_tables(methods)]
    parts += ["<h2>To repeat a run</h2>", _commands(methods), *_configurations(methods)]
    return page(title, parts)


def _answers(methods: Methods, tasks: Sequence[str], order: Mapping[str, Standing]) -> list[str]:
    best, standing = next(iter(order.items()))
    runs = methods[best]
    by_task = score_matrix(runs, tasks).mean(0)
    worst = tasks[int(by_task.argmin())]
    steps = [run.env_steps for every in methods.values() for run in every]
    is_one = len(methods) == 1
    first = (
        f"{'Score' if is_one else f'Best: <b>{html.escape(best)}</b>'}, interquartile mean "
        f"<b>{readable_value(standing.iqm)}</b> ({interval_text(standing)}) over "
        f"{_count(len(runs), 'run')} and {_count(len(tasks), 'task')}."
    )
    if not is_one:
        second, next_best = list(order.items())[1]
        follows = f"{html.escape(second)} follows with {readable_value(next_best.iqm)}"
        first += f" {follows}; {verdict(standing, next_best)}."
    by_run = score_matrix(runs, tasks).mean(1)
    whose = "" if is_one else f" of {html.escape(best)}"
    spread = f"from {span(by_run.min(), by_run.max())}" if len(runs) > 1 else "unknown, of one"
    sentences = [first, *map(html.escape, warnings(order)), f"Spread of runs{whose}: {spread}."]
    if len(tasks) > 1:
        sentences.append(
            f"Worst task{whose}: <b>{html.escape(worst)}</b>, {readable_value(by_task.min())}."
        )
    budget = " to ".join(dict.fromkeys(map(_steps, (min(steps), max(steps)))))
    sentences.append(f"Budget: {budget} env steps a run, of all tasks together.")
    going = sum(not run.is_tested for every in methods.values() for run in every)
    if going:
        sentences.append(
            f"{_count(going, 'run')} of {len(steps)} not finished: judged by the last evaluation."
        )
    return [*sentences, *_units(runs[0], tasks)]


def _left_out(runs: Sequence[FoundRun]) -> str:
    if not runs:
        return ""
    folders = ", ".join(str(run.folder) for run in runs)
    return f"<p>Left out, not evaluated yet: {html.escape(folders)}.</p>"


def _units(run: FoundRun, tasks: Sequence[str]) -> list[str]:
    """Return what scores mean, by whether tasks have a range."""
    ranged = [task for task in tasks if run.score_ranges[task] is not None]
    others = [task for task in tasks if task not in ranged]
    successes = [task for task in others if f"val/success/{task}" in run.metrics]
    meanings = {
        "0 is a random policy, 1 the reference of <code>score_range</code>": ranged,
        "the share of episodes that succeed": successes,
        "the return": [task for task in others if task not in successes],
    }
    return [
        f"Scores of {html.escape(', '.join(named))}: {meaning}."
        for meaning, named in meanings.items()
        if named
    ]


def _method_table(methods: Methods, tasks: Sequence[str], order: Mapping[str, Standing]) -> str:
    rows = []
    for method, runs in methods.items():
        scores = score_matrix(runs, tasks)
        by_run, by_task, standing = scores.mean(1), scores.mean(0), order[method]
        worst = f"{tasks[int(by_task.argmin())]} {readable_value(by_task.min())}"
        rows.append(
            (
                method,
                len(runs),
                readable_value(standing.iqm),
                span(standing.low, standing.high) if standing.has_interval else ONE_RUN,
                readable_value(by_run.mean()),
                span(by_run.min(), by_run.max()) if len(runs) > 1 else ONE_RUN,
                worst,
                _steps(max(run.env_steps for run in runs)),
            )
        )
    header = (
        "method",
        "runs",
        "IQM",
        "95 % interval",
        "mean",
        "lowest to highest run",
        "worst task",
        "env steps",
    )
    return table(header, rows)


def _task_table(methods: Methods, tasks: Sequence[str]) -> str:
    matrices = {method: score_matrix(runs, tasks) for method, runs in methods.items()}
    rows = [
        (task, *(_with_range(matrix[:, place]) for matrix in matrices.values()))
        for place, task in enumerate(tasks)
    ]
    return table(("task", *methods), rows)


def _commands(methods: Methods) -> str:
    lines = [run.command for runs in methods.values() for run in runs if run.command]
    return f"<pre>{html.escape(chr(10).join(lines))}</pre>" if lines else ""


def _configurations(methods: Methods) -> list[str]:
    """Return what each method's first run was configured with, from which all can be repeated."""
    parts = []
    for method, (first, *others) in methods.items():
        file = first.folder / CONFIG
        if first.config:
            seeds = ", ".join(str(run.config[SEED]) for run in others if SEED in run.config)
            more = f"; for the others --{SEED}={seeds}" if seeds else ""
            summary = f"{method}: {CONFIG} of {first.folder.resolve().name}{more}"
            parts.append(details(summary, file.read_text(encoding="utf-8")))
    return parts


def _with_range(scores: Array) -> str:
    text = readable_value(scores.mean())
    return text if len(scores) == 1 else f"{text} ({span(scores.min(), scores.max())})"


def _steps(count: int) -> str:
    return readable_steps(float(f"{count:.3g}"))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

"""Folders as runs leave them, written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lit_mtdqn.analysis.csv_file import write_csv


def write_run(
    folder: Path,
    scores: Mapping[str, float],
    *,
    tested: bool = True,
    tasks: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run whose last evaluation, at 2000 env steps, has half the scores of its test."""
    (folder / "report").mkdir(parents=True)
    names = [f"val/{kind}/{task}" for kind in ("score", "episode_return") for task in scores]
    rows = [
        [*(share * score for _ in range(2) for score in scores.values()), 0.0, step]
        for step, share in ((1000, 0.25), (2000, 0.5))
    ]
    write_csv(folder / "metrics.csv", [*names, "val/score/mean", "step"], rows)
    specs = {key: {"score_range": [0, 10]} for key in scores} if tasks is None else tasks
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"tasks": dict(specs)}}))
    if tested:
        tests = [[task, 5, 10 * score, "", score] for task, score in scores.items()]
        header = ("task", "episodes", "mean", "success", "score")
        write_csv(folder / "report" / "test_scores.csv", header, tests)
    return folder

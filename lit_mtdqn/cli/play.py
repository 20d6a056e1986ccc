"""`lit-mtdqn play RUN_OR_CHECKPOINT`: greedy episodes to look at."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from lit_mtdqn.analysis.whole_files import whole_file
from lit_mtdqn.callbacks.filming import film
from lit_mtdqn.deployment import SavedRun, read_run, watch
from lit_mtdqn.rollout.recording import MAX_FRAMES, Recording, UnrenderableError, write_gif
from lit_mtdqn.rollout.seeding import TEST_SEED
from lit_mtdqn.rollout.video import require_encoder, write_mp4
from lit_mtdqn.types import Episodes, require

COMMAND = "play"
SOURCE = "RUN_OR_CHECKPOINT"
WRITERS: dict[str, Callable[[Recording, Path], None]] = {"gif": write_gif, "mp4": write_mp4}
# A film is held in memory, up to 1 MB a frame.
FRAMES = {"gif": MAX_FRAMES, "mp4": 500}


def run_play(argv: list[str]) -> None:
    """Play, show or film, and print what came of it.

    Args:
        argv: The command line, `play` first.

    Raises:
        ValueError: If it is no run, a task is unknown or cannot be shown, or packages are missing.
        SystemExit: If an argument does not fit.
    """
    options = _parser().parse_args(argv[1:])
    require(options.episodes >= 1, "--episodes", "be at least 1", options.episodes)
    if options.format == "mp4" and not options.window:
        require_encoder("--format")
    run = read_run(options.RUN_OR_CHECKPOINT, SOURCE)
    tasks = options.tasks or list(run.data.tasks)
    unknown = [task for task in tasks if task not in run.data.tasks]
    require(not unknown, "--tasks", f"be among {list(run.data.tasks)}", unknown)
    folder = Path(options.folder or run.folder / "play")
    for task in tasks:
        for seed in range(options.seed, options.seed + options.episodes):
            if options.window:
                outcome, note = watch(run.policy, run.data, task, seed=seed, window=True), ""
            else:
                outcome, note = _film(run, task, seed, folder, options.format)
            print(_line(outcome, seed, note), flush=True)  # noqa: T201


def _film(run: SavedRun, task: str, seed: int, folder: Path, kind: str) -> tuple[Episodes, str]:
    """Return the outcome of an episode, and the file of its film or why there is none."""
    try:
        recording = film(run.policy, run.data, task, seed=seed, max_frames=FRAMES[kind])
    except UnrenderableError as error:
        played = watch(run.policy, run.data, task, seed=seed, window=False)
        return played, f"no film: {error}"
    path = folder / f"{task}_{seed}.{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as fresh:
        WRITERS[kind](recording, fresh)
    return recording.outcome, str(path)


def _line(outcome: Episodes, seed: int, note: str) -> str:
    success = "" if outcome.success is None else f"  success {bool(outcome.success[0])}"
    told = (
        f"{outcome.task}  seed {seed}  return {outcome.episode_return[0]:.2f}  "
        f"length {outcome.episode_length[0]}{success}"
    )
    return f"{told}  {note}".rstrip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"lit-mtdqn {COMMAND}",
        description="Play greedy episodes with the network of a run and film them, or show them in "
        "a window.",
        allow_abbrev=False,
    )
    parser.add_argument(
        SOURCE, help="Folder of a run, whose last network is taken, or a checkpoint in one."
    )
    parser.add_argument("--tasks", nargs="+", help="Names of tasks. Default: all.")
    parser.add_argument("--episodes", type=int, default=1, help="Episodes per task. Default: 1.")
    parser.add_argument(
        "--seed",
        type=int,
        default=TEST_SEED,
        help=f"Seed of the first start; the others follow. Default: {TEST_SEED}, the test's.",
    )
    parser.add_argument(
        "--format", default="gif", choices=sorted(WRITERS), help="Kind of film. Default: gif."
    )
    parser.add_argument("--folder", help="Where to write. Default: `play` in the run's folder.")
    parser.add_argument("--window", action="store_true", help="Show a window and write nothing.")
    return parser

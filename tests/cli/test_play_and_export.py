"""A run is played, filmed and written for other programs."""

from pathlib import Path

import pytest
from helpers.counting_env import SINGLE
from helpers.picture_env import PATH
from helpers.runs import NETWORK
from helpers.saved_runs import save_run
from PIL import Image, ImageSequence

from lit_mtdqn.cli import main

TASKS = {
    "pictures": {"env": PATH, "kwargs": {"pattern": [5]}, "success_key": "success"},
    "none": {"env": SINGLE, "kwargs": {"pattern": [4]}},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return save_run(tmp_path / "run", TASKS, network=NETWORK)


def test_episodes_are_filmed_one_by_one_and_returns_are_printed(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["play", str(run), "--tasks", "pictures", "--episodes", "2", "--seed", "7"])
    lines = capsys.readouterr().out.splitlines()
    files = [run / "play" / f"pictures_{seed}.gif" for seed in (7, 8)]
    assert [line.split("  ")[1:] for line in lines] == [
        [f"seed {seed}", line.split("  ")[2], "length 5", "success True", str(file)]
        for seed, file, line in zip((7, 8), files, lines, strict=True)
    ]
    assert sorted(path.name for path in (run / "play").iterdir()) == [f.name for f in files]
    with Image.open(files[0]) as film:
        # Frames that look alike are one; six states take five steps, and the last one stays.
        shown = sum(frame.info["duration"] for frame in ImageSequence.Iterator(film))
        assert shown == 5 * 50 + 1500


def test_what_gives_no_pictures_is_played_all_the_same(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["play", str(run / "checkpoints" / "last.ckpt"), "--tasks", "none"])
    assert "length 4  no film: " in capsys.readouterr().out
    assert not (run / "play").exists()


def test_a_window_shows_what_can_be_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = {"cartpole": {"env": "CartPole-v1", "time_limit": 3}}
    main(["play", str(save_run(tmp_path / "run", tasks, network=NETWORK)), "--window"])
    assert "length 3" in capsys.readouterr().out


def test_a_window_that_is_none_is_complained_of(run: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: `--window` must be asked for tasks"):
        main(["play", str(run), "--window"])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--tasks", "typo"], "`--tasks` must be among"),
        (["--episodes", "0"], "`--episodes` must be at least 1"),
    ],
)
def test_arguments_that_do_not_fit_end_in_one_sentence(
    arguments: list[str], complaint: str, run: Path
) -> None:
    with pytest.raises(SystemExit, match=f"^error: {complaint}"):
        main(["play", str(run), *arguments])


def test_a_missing_encoder_is_named_before_anything_is_played(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lit_mtdqn.rollout.video.importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"^error: `--format` must have .*lit-mtdqn\[video\]"):
        main(["play", "nowhere", "--format", "mp4"])


def test_an_export_says_what_it_compared_and_where_it_lies(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["export", str(run), "--formats", "pt2", "--observations", "30"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == (
        ["file", "task", "observations", "same", "action", "equally", "good", "difference"]
    )
    assert [line.split()[:5] for line in lines[2:4]] == [
        ["last.pt2", task, "30", "30", "0"] for task in TASKS
    ]
    assert lines[4:] == [f"Wrote {run}/export/last.pt2"]
    assert (run / "export" / "last.pt2").is_file()


def test_an_option_of_an_export_is_named_as_it_was_typed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SystemExit, match=r"^error: `--observations` must be at least 2. Got 1\.$"):
        main(["export", "nowhere", "--observations", "1"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"^error: `--formats` must have their packages"):
        main(["export", "nowhere"])


def test_what_is_no_run_ends_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: `RUN_OR_CHECKPOINT` must be a checkpoint, or"):
        main(["export", str(tmp_path)])

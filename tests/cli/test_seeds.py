import subprocess
from typing import Any

import pytest

from lit_mtdqn.cli.seeds import parse_seeds, run_seeds, split_seeds


@pytest.mark.parametrize(
    ("text", "seeds"), [("0..4", [0, 1, 2, 3, 4]), ("7", [7]), ("0,3,7", [0, 3, 7]), ("2..2", [2])]
)
def test_seeds_read_like_ranges_and_lists(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3..1", "1,,2"])
def test_other_texts_are_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"`seeds` must read like 0\.\.4 or 0,3,7\. Got"):
        parse_seeds(text)


def test_a_command_line_without_seeds_stays_as_it_is() -> None:
    assert split_seeds(["fit", "--data.num_envs=4"]) == ([], 1, ["fit", "--data.num_envs=4"])


def test_seeds_and_jobs_are_taken_off_the_command_line() -> None:
    argv = ["fit", "--seeds", "0..1", "--jobs=2", "--config", "a.yaml"]
    assert split_seeds(argv) == ([0, 1], 2, ["fit", "--config", "a.yaml"])


def test_each_seed_gets_its_own_process_and_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command[3:])
        return subprocess.CompletedProcess(command, returncode=3 if len(commands) == 2 else 0)

    monkeypatch.setattr(subprocess, "run", run)
    code = run_seeds(["fit", "--run_dir=out", "--config=a.yaml"], [4, 5], jobs=1)
    assert code == 3
    assert commands == [
        ["fit", "--config=a.yaml", f"--seed_everything={seed}", f"--run_dir=out/seed_{seed}"]
        for seed in (4, 5)
    ]

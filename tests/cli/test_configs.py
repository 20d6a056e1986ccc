"""Shipped configurations are listed, copied and found by name wherever one is."""

import subprocess
import sys
from pathlib import Path

import pytest

from lit_mtdqn.cli import main
from lit_mtdqn.cli.configs import headline
from lit_mtdqn.cli.main import rehearse
from lit_mtdqn.cli.sequence_file import read_sequence
from lit_mtdqn.cli.shipped import found_file, shipped_files, shipped_folder, with_found_configs

CARTPOLE = shipped_folder() / "dqn" / "cartpole.yaml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_configuration_is_listed_with_what_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    main(["configs"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [str(path) for path in shipped_files()]
    (own,) = [line for line in lines if line.startswith("dqn/cartpole.yaml ")]
    assert own.endswith("  CartPole-v1: Double DQN with 3-step returns.")
    assert [line for line in lines if len(line.split()) < 3] == []
    assert [line for line in lines if not line.endswith(".")] == []


def test_sentences_of_several_lines_are_shown_whole_or_cut_at_the_edge_of_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = shipped_folder() / "sequences" / "breakout_students.yaml"
    sentence = "five distances to one teacher, and how small a student may be."
    assert headline(name) == f"Students of MinAtar's Breakout: {sentence}"
    monkeypatch.setenv("COLUMNS", "100")
    main(["configs"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.endswith(" ...") for line in lines)


def test_a_reader_that_has_enough_ends_the_list_in_silence() -> None:
    command = [sys.executable, "-m", "lit_mtdqn", "configs"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.close()
        assert listing.stderr.read() == b""
    assert listing.returncode == 0


def test_one_or_a_folder_is_copied(capsys: pytest.CaptureFixture[str]) -> None:
    main(["configs", "copy", "configs/dqn/cartpole.yaml"])
    assert capsys.readouterr().out == "configs/dqn/cartpole.yaml\n"
    assert Path("configs/dqn/cartpole.yaml").read_bytes() == CARTPOLE.read_bytes()
    main(["configs", "copy", "sweeps", "mine"])
    assert len(list(Path("mine/sweeps").iterdir())) == len(capsys.readouterr().out.splitlines())


def test_no_copy_replaces_what_was_changed() -> None:
    main(["configs", "copy", "dqn"])
    Path("configs/dqn/cartpole.yaml").write_text("mine: 1\n")
    Path("configs/dqn/acrobot.yaml").unlink()
    with pytest.raises(SystemExit, match=r"^error: `FOLDER` must hold no other files"):
        main(["configs", "copy", "dqn"])
    assert not Path("configs/dqn/acrobot.yaml").exists()


def test_an_unknown_name_ends_in_one_sentence() -> None:
    with pytest.raises(SystemExit, match=r"^error: `NAME` must be one that `lit-mtdqn configs`"):
        main(["configs", "copy", "dqn/typo.yaml"])


@pytest.mark.parametrize("name", ["dqn/cartpole.yaml", "configs/dqn/cartpole.yaml"])
def test_a_name_means_the_users_file_or_else_the_shipped_one(name: str) -> None:
    assert found_file(name) == str(CARTPOLE)
    Path(name).parent.mkdir(parents=True)
    Path(name).touch()
    assert found_file(name) == name


def test_only_files_of_options_that_take_them_are_looked_for() -> None:
    name, both = "dqn/cartpole.yaml", ["--config", "dqn/cartpole.yaml"]
    argv = ["fit", *both, f"--config={name}", f"--run_dir={name}", "--config=typo.yaml", name]
    found = with_found_configs(argv)
    shipped = str(CARTPOLE)
    assert found == [
        *("fit", "--config", shipped, f"--config={shipped}"),
        *(f"--run_dir={name}", "--config=typo.yaml", name),
    ]


def test_a_run_and_a_sequence_take_shipped_configurations_from_anywhere() -> None:
    config = rehearse(["fit", "--config=dqn/cartpole.yaml"], builds=False)
    assert list(config["data"]["tasks"]) == ["cartpole"]
    sequence = read_sequence("sequences/curriculum.yaml")
    assert all(Path(config).is_file() for stage in sequence.stages for config in stage.configs)

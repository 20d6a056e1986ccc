"""What is installed works outside the repository."""

import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from lit_mtdqn.cli.shipped import shipped_files

ROOT = Path(__file__).parents[2]
BUILD = "from hatchling.build import build_wheel; import sys; build_wheel(sys.argv[1])"
BUILD_SOURCE = BUILD.replace("build_wheel", "build_sdist")
pytestmark = pytest.mark.slow


def run(*command: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({} if path is None else {"PYTHONPATH": str(path)})}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="needs hatchling")
def test_a_wheel_holds_the_configurations_and_trains_with_them(tmp_path: Path) -> None:
    run("-c", BUILD, str(tmp_path), cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        file.extractall(tmp_path / "installed")
    assert {f"lit_mtdqn/configs/{path.as_posix()}" for path in shipped_files()} <= names
    assert "lit_mtdqn/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"lit_mtdqn"}
    elsewhere, installed = tmp_path / "elsewhere", tmp_path / "installed"
    elsewhere.mkdir()
    where = run("-c", "import lit_mtdqn; print(lit_mtdqn.__file__)", cwd=elsewhere, path=installed)
    assert where.stdout.startswith(str(installed))
    listed = run("-m", "lit_mtdqn", "configs", cwd=elsewhere, path=installed).stdout
    assert "dqn/cartpole.yaml" in listed
    configs = ("--config", "dqn/cartpole.yaml", "--config", "configs/overlays/smoke.yaml")
    run("-m", "lit_mtdqn", "fit", *configs, "--run_dir=run", cwd=elsewhere, path=installed)
    assert (elsewhere / "run" / "report" / "test_scores.csv").is_file()


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="needs hatchling")
def test_a_source_distribution_holds_what_its_documents_name(tmp_path: Path) -> None:
    run("-c", BUILD_SOURCE, str(tmp_path), cwd=ROOT)
    (source,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {"CONTRIBUTING.md", "CITATION.cff", "Makefile", "LICENSE"} <= names
    for folder in ("notebooks", "benchmarks", "docs", "configs", "lit_mtdqn", "tests"):
        # Git ignores benchmarks whose names begin with an underscore.
        kept = [path for path in (ROOT / folder).glob("*.*") if not path.name.startswith("_")]
        files = {path.relative_to(ROOT).as_posix() for path in kept if path.is_file()}
        assert files <= names
        assert any(name.startswith(f"{folder}/") for name in names)


@pytest.mark.skipif(importlib.util.find_spec("pdoc") is None, reason="needs lit-mtdqn[docs]")
def test_the_reference_is_built_from_docstrings_without_a_warning(tmp_path: Path) -> None:
    # Stamps of an environment that is ready: this one.
    for stamp in (".installed", ".installed-dev"):
        (tmp_path / stamp).touch()
    ready = [f"BIN={Path(sys.executable).parent}", f"VENV={tmp_path}"]
    command = ["make", "docs", *ready, f"SITE={tmp_path / 'site'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (tmp_path / "site" / "lit_mtdqn").glob("*.html")}
    folders = {path.parent.name for path in (ROOT / "lit_mtdqn").glob("*/__init__.py")}
    assert pages >= folders - {"cli"}
    assert "TargetNetworkSync" in (tmp_path / "site" / "lit_mtdqn" / "callbacks.html").read_text()

"""What guides point to is there, and what they show runs as it stands there."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers.counting_env import SINGLE
from helpers.documents import blocks
from helpers.failing_env import FAILING
from helpers.runs import fit, small_data
from helpers.saved_runs import save_run

from lit_mtdqn import MultiTaskDQN, TaskSpec
from lit_mtdqn.balancing import GradNorm
from lit_mtdqn.callbacks import GradientAgreement, NetworkHealth, TaskAffinity
from lit_mtdqn.cli.main import rehearse
from lit_mtdqn.networks import Experts, MLPTorso, QNetwork
from lit_mtdqn.scaling import PopArt

PAGES = [
    Path("README.md"),
    Path("CONTRIBUTING.md"),
    Path("CHANGELOG.md"),
    *sorted(Path("docs").glob("*.md")),
    *sorted(Path("configs").rglob("*.md")),
]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
NAMED_TEST = re.compile(r"`([\w/]+/test_\w+\.py)`")
EACH = pytest.mark.parametrize("page", PAGES, ids=str)


@EACH
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@EACH
def test_tests_that_a_page_names_exist(page: Path) -> None:
    named = NAMED_TEST.findall(page.read_text())
    assert [name for name in named if not (Path("tests") / name).is_file()] == []


def test_faults_are_shown_by_tests() -> None:
    rows = Path("docs/faults.md").read_text().partition("\n## ")[0].splitlines()
    table = [row for row in rows if row.startswith("| ")][1:]
    assert len(table) >= 10
    unshown = [row for row in table if not NAMED_TEST.search(row)]
    # Lightning's own timer, and what nothing could catch.
    assert all("max_time" in row for row in unshown)


GUIDES = [page for page in PAGES if page.parent.name == "docs" and "```python" in page.read_text()]


@pytest.mark.parametrize("page", GUIDES, ids=str)
def test_the_python_of_a_guide_runs_in_its_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs no PyTorch is run where there is something to serve."""
    codes = [code for code in blocks(page.read_text(), "python") if "InferenceSession" not in code]
    save_run(tmp_path / "runs" / "cartpole", {"cartpole": {"env": "CartPole-v1"}})
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # The guide tells to save it under this name.
    Path("corridor.py").write_text(codes[0])
    names: dict[str, Any] = {"__name__": "guide"}
    for code in codes:
        exec(code, names)


@pytest.mark.parametrize(
    ("page", "module"), [("new_task", "corridor"), ("new_objective", "objectives")]
)
def test_the_configuration_of_a_guide_is_one(
    page: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = Path(f"docs/{page}.md")
    (tmp_path / f"{module}.py").write_text(blocks(guide.read_text(), "python")[0])
    (tmp_path / "mine.yaml").write_text(blocks(guide.read_text(), "yaml")[0])
    monkeypatch.syspath_prepend(tmp_path)
    base = ["--config=configs/multitask/classic_control.yaml"] if "objective" in page else []
    config = rehearse(["fit", *base, f"--config={tmp_path / 'mine.yaml'}"], builds=False)
    found = config["model"]["init_args"].get("objectives") or config["data"]["tasks"]["corridor"]
    assert module in str(found)


METRIC = re.compile(r"`([\w/<>]+)`")


def documented() -> re.Pattern[str]:
    rows = [r for r in Path("docs/metrics.md").read_text().splitlines() if r.startswith("| `")]
    names = [name for row in rows for name in METRIC.findall(row.split(" | ")[0])]
    parts = {"<task>": r"[A-Za-z_]\w*", "<expert>": r"\d+", "<layer>": r"\w+"}
    patterns = [re.sub(r"<\w+>", lambda found: parts[found[0]], name) for name in names]
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))


BREAKS = {"how": "raise", "when": "step", "only_in": None, "parent": 0, "after": 5}


@pytest.mark.filterwarnings("ignore:.*broken")
def test_every_metric_that_a_run_logs_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: set[str] = set()
    log_dict = MultiTaskDQN.log_dict

    def note(self: Any, metrics: Any, *arguments: Any, **options: Any) -> None:
        logged.update(metrics)
        log_dict(self, metrics, *arguments, **options)

    monkeypatch.setattr(MultiTaskDQN, "log_dict", note)
    tasks = {
        "left": TaskSpec(env=SINGLE, success_key="success", score_range=(0, 9)),
        "right": TaskSpec(env=SINGLE),
        "held": TaskSpec(env=SINGLE, acts=False, learns=False, head="left"),
        "broken": TaskSpec(
            env=FAILING, kwargs=BREAKS, backend="sync", restarts=1000, evaluates=False
        ),
    }
    data = small_data(tasks, total_env_steps=240)
    torso, sharing = partial(MLPTorso, hidden=[8, 8]), partial(Experts, num_experts=2)
    network = partial(QNetwork, torso=torso, sharing=sharing)
    model = MultiTaskDQN(data.task_infos, network, balancer=GradNorm, scale=PopArt)
    looks = [kind(every_n_updates=2) for kind in (GradientAgreement, TaskAffinity, NetworkHealth)]
    fit(data, model, *looks, log_every_n_steps=1)
    kinds = {name.split("/")[0] for name in logged}
    expected = {"rollout", "train", "val", "scale", "gradients", "affinity", "health"}
    assert expected <= kinds
    assert {"train/task_weight/left", "train/expert_usage/left/1", "val/score/held_out"} <= logged
    assert "rollout/restarts/broken" in logged
    pattern = documented()
    assert sorted(name for name in logged if not pattern.fullmatch(name)) == []
    assert not pattern.fullmatch("train/unheard_of")

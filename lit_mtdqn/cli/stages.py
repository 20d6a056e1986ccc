"""From what a user writes of a sequence to the command of each stage, checked as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

from omegaconf import OmegaConf

from lit_mtdqn.analysis.sequence_report import ReportedStage
from lit_mtdqn.cli.errors import complaint_of, exit_code_for, leave
from lit_mtdqn.cli.sequence_file import (
    SOURCE,
    SequenceFile,
    Stage,
    with_folders,
    with_source,
)
from lit_mtdqn.replay.buffer import MANIFEST
from lit_mtdqn.types import MEANING, require

Config = dict[str, Any]
# A task of one name is the same task in all stages if these agree.
OF_TASK = ("env", "kwargs", "wrappers", "time_limit", "score_range", "success_key")
HELD_OUT = {"acts": False, "learns": False, "replay": None}
CALLBACKS = "lit_mtdqn.callbacks"
TRANSFER, REPLAY_CALLBACK = "WeightTransfer", "ReplayCheckpoint"
# What the command decides for all stages.
DECIDED = ("run_dir", "ckpt_path", "overwrite", "seeds")
# Where `ReplayCheckpoint` writes, of several devices the first one's share.
REPLAY = Path("replay", "rank_0")


class Rehearse(Protocol):
    """Finds out what a `fit` would do, and does nothing."""

    def __call__(self, argv: list[str], *, builds: bool) -> Config:
        """Return the whole configuration of a command line as plain values.

        Args:
            argv: The command line, `fit` first.
            builds: Whether environments, networks and callbacks are built, too.

        Raises:
            SystemExit: If an argument does not fit its type.
            ValueError: If a value is out of range.
        """


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A stage that is ready to run.

    Attributes:
        stage: What the user wrote.
        root: Folder of the sequence.
        command: Arguments of its `fit`.
        config: All that is configured of it, as its folder will have it.
        keeps_replay: Whether a later stage takes its replay.
    """

    stage: Stage
    root: Path
    command: list[str]
    config: Config
    keeps_replay: bool

    @property
    def learned(self) -> tuple[str, ...]:
        """Names of the tasks that it learns."""
        return tuple(name for name, task in _tasks(self.config).items() if task["learns"])

    @property
    def reported(self) -> ReportedStage:
        """What the report of the sequence needs to know of it."""
        return ReportedStage(
            name=self.stage.name,
            learned=self.learned,
            scored=tuple(name for name, task in _tasks(self.config).items() if _is_scored(task)),
            parents=self.stage.parents,
            against=self.stage.against,
        )

    def lacks_replay(self, folder: Path) -> bool:
        """Return whether a replay that a later stage takes is missing, whole or in part.

        Args:
            folder: That of the stage.
        """
        files = [folder / REPLAY / name / MANIFEST for name in _tasks(self.config)]
        return self.keeps_replay and not all(file.is_file() for file in files)


def plan(
    sequence: SequenceFile, root: Path, options: Sequence[str], rehearse: Rehearse
) -> list[Planned]:
    """Return the commands of all stages; everything is checked but what earlier stages will leave.

    Args:
        sequence: What the user wrote.
        root: Folder of the sequence.
        options: Further arguments of every stage.
        rehearse: Finds out what a `fit` would do.

    Raises:
        ValueError: If stages do not fit together.
        SystemExit: If a stage is refused by itself.
    """
    parsed: dict[str, Config] = {}
    for stage in sequence.stages:
        with _complaining_of(stage):
            parsed[stage.name] = rehearse(_given(stage, root, options), builds=False)
        _check_decided(stage, parsed[stage.name])
    known = _known_tasks(parsed)
    keeping = _keeping(sequence.stages, parsed, root)
    planned: dict[str, Planned] = {}
    for stage in sequence.stages:
        config = parsed[stage.name]
        own = _tasks(config)
        changes = _task_changes(stage, own, known if sequence.evaluates_all else {})
        tasks = {name: {**own.get(name, {}), **change} for name, change in changes.items()}
        for name, replay in _replays(stage, tasks, planned, root).items():
            changes[name]["replay"] = replay
        callbacks = _callbacks(stage, config, root, keeps_replay=stage.name in keeping)
        command = [
            *_given(stage, root, options),
            *_task_arguments(changes, own),
            f"--config={json.dumps({'trainer': {'callbacks+': callbacks}})}",
            f"--run_dir={root / stage.name}",
        ]
        with _complaining_of(stage):
            planned[stage.name] = Planned(
                stage=stage,
                root=root,
                command=command,
                config=rehearse(command, builds=True),
                keeps_replay=stage.name in keeping,
            )
    for one in planned.values():
        _check_files(one)
        _check_against(one, planned)
    return list(planned.values())


def _given(stage: Stage, root: Path, options: Sequence[str]) -> list[str]:
    """Return the command line of a stage as far as the user has written it."""
    overlay = with_folders(stage.overlay, root)
    return [
        "fit",
        *(f"--config={_configuration(config, stage, root)}" for config in stage.configs),
        *([f"--config={json.dumps(overlay)}"] if overlay else []),
        *with_folders(stage.arguments, root),
        *options,
    ]


def _configuration(config: str, stage: Stage, root: Path) -> str:
    """Return a configuration, in which `runs/source` means the stage that the weights come from."""
    given = OmegaConf.to_container(OmegaConf.load(config), resolve=False)
    if with_source(given, "") == given:
        return config
    if len(stage.parents) != 1:
        must = f"name the one stage that {SOURCE} means in {config}, as there is no such run"
        require(Path(SOURCE).exists(), "from", must, list(stage.parents))
        return config
    return json.dumps(with_source(given, str(root / stage.parents[0])))


def _check_decided(stage: Stage, config: Config) -> None:
    """Refuse options of a single run."""
    for name in DECIDED:
        must = "not be set in a sequence, which decides it for all stages"
        value = config[name]
        require(value in (None, False), f"stages.{stage.name}: {name}", must, value)


def _keeping(stages: Sequence[Stage], parsed: Mapping[str, Config], root: Path) -> set[str]:
    """Return the stages whose replays others take, by `replay_from` or by their folders."""
    taken = [task["replay"] for config in parsed.values() for task in _tasks(config).values()]
    folders = [Path(replay) for replay in taken if replay is not None]
    named = {name for stage in stages for name in stage.replay_from}
    return named | {
        stage.name
        for stage in stages
        if any(folder.is_relative_to(root / stage.name) for folder in folders)
    }


def _known_tasks(parsed: Mapping[str, Config]) -> Config:
    """Return all evaluated tasks of all stages, each as the first stage has it that does.

    Raises:
        ValueError: If stages mean unlike tasks by one name.
    """
    known: Config = {}
    for stage, config in parsed.items():
        evaluated = {name: task for name, task in _tasks(config).items() if task["evaluates"]}
        for name, task in evaluated.items():
            if name not in known:
                known[name] = task
            first = known[name]
            for key in OF_TASK:
                must = f"be {first[key]!r} as in earlier stages; another task has another name"
                same = task[key] == first[key]
                require(same, f"stages.{stage}: data.tasks.{name}.{key}", must, task[key])
    return known


def _task_changes(stage: Stage, own: Config, known: Config) -> dict[str, Config]:
    """Return what is said of tasks beyond a stage's configurations, by task, those unknown too."""
    learned = stage.tasks
    if learned is not None:
        must = f"name tasks of its configurations, {list(own)}"
        for name in learned:
            require(name in own, f"stages.{stage.name}.tasks", must, name)
    changes: dict[str, Config] = {name: {} for name in own}
    for name in own if learned is not None else []:
        assert learned is not None
        changes[name] = {"acts": True, "learns": True} if name in learned else dict(HELD_OUT)
    others = {name: {**task, **HELD_OUT} for name, task in known.items() if name not in own}
    return {**changes, **others}


def _task_arguments(changes: Mapping[str, Config], own: Config) -> Iterator[str]:
    for name, change in changes.items():
        if name in own:
            for key, value in change.items():
                text = value if isinstance(value, str) else json.dumps(value)
                yield f"--data.tasks.{name}.{key}={text}"
        else:
            yield f"--data.tasks.{name}={json.dumps(change)}"


def _replays(
    stage: Stage, tasks: Config, planned: Mapping[str, Planned], root: Path
) -> dict[str, str]:
    """Return the folders of stored replays by task: of several stages the last one's.

    Raises:
        ValueError: If a stage keeps no replay of a task that is learned here, or one that means
            something else.
    """
    found: dict[str, str] = {}
    for name in stage.replay_from:
        where = f"stages.{stage.name}.replay_from"
        must = "name stages whose `data.keeps_replays` is true"
        require(planned[name].config["data"]["keeps_replays"], where, must, name)
        stored = _tasks(planned[name].config)
        played = {task for task in stored if _is_played(stored[task])}
        learned = [task for task in tasks if tasks[task]["learns"]]
        shared = [task for task in learned if task in played]
        must = f"name a stage that keeps a replay of a task learned here, of {learned}"
        require(bool(shared), where, must, f"{name}, which plays {sorted(played)}")
        for task in shared:
            for key in MEANING:
                value = stored[task][key]
                must = f"be {value!r} as in the stage {name}, whose replay is learned from"
                own = tasks[task][key]
                require(own == value, f"stages.{stage.name}: data.tasks.{task}.{key}", must, own)
            found[task] = str(root / name / REPLAY / task)
    return found


def _callbacks(
    stage: Stage, config: Config, root: Path, *, keeps_replay: bool
) -> list[dict[str, Any]]:
    """Return the callbacks that a stage needs and its configurations lack."""
    given = {class_name(entry): entry for entry in config["trainer"]["callbacks"] or []}
    needed = [] if _is_moved(stage, config, root) else _transfers(stage, root)
    if keeps_replay and REPLAY_CALLBACK in given:
        folder = (given[REPLAY_CALLBACK].get("init_args") or {}).get("folder")
        must = "be null in a stage whose replay another one takes"
        require(folder is None, f"stages.{stage.name}: ReplayCheckpoint.folder", must, folder)
    elif keeps_replay:
        needed.append(_callback(REPLAY_CALLBACK, {}))
    if "InitialEvaluation" not in given:
        needed.append(_callback("InitialEvaluation", {}))
    return needed


def _is_moved(stage: Stage, config: Config, root: Path) -> bool:
    """Return whether configurations move the weights of `from` already, as overlays do.

    Raises:
        ValueError: If they move others besides, or `from` says more than a stage.
    """
    entries = [e for e in config["trainer"]["callbacks"] or [] if class_name(e) == TRANSFER]
    if not entries or not stage.sources:
        return False
    sources = [entry["init_args"]["source"] for entry in entries]
    is_alone = [set(source) for source in stage.sources] == [{"stage"}]
    is_own = all(source == str(root / stage.parents[0]) for source in sources)
    must = f"be one stage alone where configurations have a {TRANSFER}, whose source is {SOURCE}"
    given = f"{[dict(source) for source in stage.sources]} beside {sources}"
    require(is_alone and is_own, f"stages.{stage.name}.from", must, given)
    return True


def _transfers(stage: Stage, root: Path) -> list[dict[str, Any]]:
    found = []
    for source in stage.sources:
        folders = [str(root / name) for name in source["stage"]]
        arguments = {key: value for key, value in source.items() if key != "stage"}
        arguments["source"] = folders if len(folders) > 1 else folders[0]
        found.append(_callback(TRANSFER, arguments))
    return found


def _callback(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"class_path": f"{CALLBACKS}.{name}"}
    return {**entry, "init_args": arguments} if arguments else entry


def class_name(entry: Mapping[str, Any]) -> str:
    """Return the name of the class that an entry of a list of callbacks is of."""
    return str(entry["class_path"]).rpartition(".")[2]


def _check_files(one: Planned) -> None:
    """Refuse a stage that leaves nothing to go on from or to report."""
    for name in ("logger", "enable_checkpointing"):
        must = "not be false in a sequence, which reads what its stages leave"
        value = one.config["trainer"][name]
        require(value is not False, f"stages.{one.stage.name}: trainer.{name}", must, value)


def _check_against(one: Planned, planned: Mapping[str, Planned]) -> None:
    against = one.stage.against
    if against is not None:
        other = planned[against].learned
        must = f"name a stage that learns a task of this one, of {list(one.learned)}"
        shared = set(one.learned) & set(other)
        where = f"stages.{one.stage.name}.against"
        require(bool(shared), where, must, f"{against}, which learns {list(other)}")


def _tasks(config: Config) -> Config:
    tasks: Config = config["data"]["tasks"]
    return tasks


def _is_scored(task: Config) -> bool:
    return task["score_range"] is not None or task["success_key"] is not None


def _is_played(task: Config) -> bool:
    return bool(task["acts"]) and task["replay"] is None


@contextmanager
def _complaining_of(stage: Stage) -> Iterator[None]:
    """Name the stage in what is said of its arguments."""
    said = StringIO()
    try:
        with redirect_stderr(said):
            yield
    except SystemExit:
        sentence = said.getvalue().partition("\n")[0].removeprefix("error: ")
        leave(2, f"stage {stage.name}: {sentence}")
    except Exception as error:
        found = complaint_of(error)
        if found is None:
            error.add_note(f"This was stage {stage.name}.")
            raise
        leave(exit_code_for(error), f"stage {stage.name}: {found}")

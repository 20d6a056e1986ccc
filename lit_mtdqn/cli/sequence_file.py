"""What a user writes of a sequence: its stages, and what each takes from those before it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lit_mtdqn.cli.shipped import found_file
from lit_mtdqn.types import require

OF_FILE = ("stages", "configs", "arguments", "evaluate_all")
OVERLAY = ("model", "data", "trainer")
OF_STAGE = ("configs", "arguments", *OVERLAY, "tasks", "from", "replay_from", "against", "reaches")
OF_SOURCE = ("stage", "parts", "tasks", "names", "layers", "exact", "keep", "checkpoint")
NAME = re.compile(r"[A-Za-z]\w*")
# A seed's folder of its own, and that of the report, lie beside those of stages.
RESERVED = re.compile(r"report|seed_\d+")
# What overlays call the run that they start from.
SOURCE = "runs/source"
# That folder and what lies in it, but neither `runs/source_2` nor `old_runs/source`.
OF_SOURCE_RUN = re.compile(rf"(?<![\w./-]){SOURCE}(?![\w.-])")
REFERENCE = re.compile(r"\$\{stage:([^}]*)\}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of a sequence.

    Attributes:
        name: Its name and that of its folder.
        configs: Configurations, one laid over the other.
        arguments: Arguments of `lit-mtdqn fit`.
        overlay: Laid over the configurations: `model`, `data` and `trainer`.
        tasks: Names of the tasks that it learns, those not named are held out; None takes all as
            they are configured.
        sources: Where weights come from: arguments of a `WeightTransfer` each, with `stage`, the
            names of stages, in place of its source.
        replay_from: Stages whose stored replays take the place of playing their tasks.
        against: Stage that learned the same from scratch, or None.
        reaches: Score that every task it learns must have in its test, or nothing builds on it;
            None takes what comes.
    """

    name: str
    configs: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    overlay: Mapping[str, Any]
    tasks: tuple[str, ...] | None = None
    sources: tuple[Mapping[str, Any], ...] = ()
    replay_from: tuple[str, ...] = ()
    against: str | None = None
    reaches: float | None = None

    @property
    def parents(self) -> tuple[str, ...]:
        """The stages whose weights it starts from."""
        return tuple(name for source in self.sources for name in source["stage"])

    @property
    def needs(self) -> tuple[str, ...]:
        """All stages that must be finished before it starts, each once."""
        named = [name for text in _texts((self.overlay, self.arguments)) for name in _named(text)]
        return tuple(dict.fromkeys([*self.parents, *self.replay_from, *named]))


@dataclass(frozen=True, kw_only=True)
class SequenceFile:
    """A sequence of runs.

    Attributes:
        stages: The runs, in their order.
        evaluates_all: Whether each stage evaluates the tasks of all others, too.
    """

    stages: tuple[Stage, ...]
    evaluates_all: bool = True


def read_sequence(path: str | Path) -> SequenceFile:
    """Return what a sequence file says.

    Raises:
        ValueError: If it is missing or no YAML, has unknown keys, names missing configurations, or
            a stage takes something from one that does not come before it.
    """
    file = Path(found_file(str(path)))
    require(file.is_file(), "FILE", "be the file of a sequence", str(path))
    try:
        # As configurations are read, duplicate keys and all; `${stage:...}` stays as it is.
        given = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        must = "be a mapping in YAML that names each key once"
        reason = " ".join(str(error).split())
        raise ValueError(f"`{path}` must {must}. Got {reason}.") from error
    given = _mapping(given, str(path), OF_FILE)
    stages = given.get("stages")
    is_some = isinstance(stages, dict) and len(stages) >= 1
    require(is_some, "stages", "be a mapping of stages by name, at least one", stages)
    assert isinstance(stages, dict)
    everywhere = given.get("evaluate_all", True)
    require(isinstance(everywhere, bool), "evaluate_all", "be true or false", everywhere)
    shared = {name: _strings(given, name, name) for name in ("configs", "arguments")}
    read = [_read_stage(name, stage, shared) for name, stage in stages.items()]
    for place, stage in enumerate(read):
        _check_references(stage, [earlier.name for earlier in read[:place]], list(stages))
    return SequenceFile(stages=tuple(read), evaluates_all=everywhere)


def with_folders(value: Any, root: Path) -> Any:
    """Return strings, lists and mappings with the folders of stages for `${stage:<name>}`.

    Args:
        value: What may name stages.
        root: Folder of the sequence, in which each stage has its own.
    """
    return _changed(value, lambda text: REFERENCE.sub(lambda found: str(root / found[1]), text))


def with_source(value: Any, folder: str) -> Any:
    """Return strings, lists and mappings with a folder for `runs/source`.

    Args:
        value: What may name it, as overlays of `configs/methods/` do.
        folder: That of the stage which is meant.
    """
    return _changed(value, lambda text: OF_SOURCE_RUN.sub(lambda _: folder, text))


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _changed(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(item, change) for item in value]
    return value


def _read_stage(name: Any, given: Any, shared: Mapping[str, tuple[str, ...]]) -> Stage:
    where = f"stages.{name}"
    must = "be named by letters, digits and underscores, neither `report` nor `seed_<n>`"
    text = str(name)
    is_name = NAME.fullmatch(text) is not None and RESERVED.fullmatch(text) is None
    require(is_name, "stages", must, name)
    given = _mapping({} if given is None else given, where, OF_STAGE)
    own = {key: _strings(given, key, f"{where}.{key}") for key in ("configs", "arguments")}
    configs = tuple(found_file(config) for config in (*shared["configs"], *own["configs"]))
    must = "name a configuration, in the stage or for all"
    require(len(configs) >= 1, f"{where}.configs", must, list(configs))
    for config in configs:
        require(Path(config).is_file(), f"{where}.configs", "name files", config)
    learned = None
    if given.get("tasks") is not None:
        learned = _strings(given, "tasks", f"{where}.tasks")
        require(len(learned) >= 1, f"{where}.tasks", "name a task that learns", list(learned))
    against = given.get("against")
    must = "name one stage"
    require(against is None or isinstance(against, str), f"{where}.against", must, against)
    reaches = given.get("reaches")
    is_score = isinstance(reaches, int | float) and not isinstance(reaches, bool)
    require(reaches is None or is_score, f"{where}.reaches", "be a score", reaches)
    return Stage(
        name=text,
        configs=configs,
        arguments=(*shared["arguments"], *own["arguments"]),
        overlay={key: given[key] for key in OVERLAY if key in given},
        tasks=learned,
        sources=_read_sources(given.get("from"), f"{where}.from"),
        replay_from=_strings(given, "replay_from", f"{where}.replay_from"),
        against=against,
        reaches=None if reaches is None else float(reaches),
    )


def _read_sources(given: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    entries = [] if given is None else given if isinstance(given, list) else [given]
    found = []
    for entry in entries:
        entry = {"stage": entry} if isinstance(entry, str) else entry
        source = _mapping(entry, where, OF_SOURCE)
        stages = _strings(source, "stage", f"{where}.stage")
        require(len(stages) >= 1, where, "name a stage", entry)
        found.append({**source, "stage": stages})
    return tuple(found)


def _check_references(stage: Stage, earlier: list[str], every: list[str]) -> None:
    where = f"stages.{stage.name}"
    for key, names in (("from", stage.parents), ("replay_from", stage.replay_from)):
        for name in names:
            require(name in earlier, f"{where}.{key}", f"name stages before it, {earlier}", name)
    for name in stage.needs:
        must = f"name stages before it in `${{stage:...}}`, {earlier}"
        require(name in earlier, where, must, name)
    others = [name for name in every if name != stage.name]
    is_other = stage.against is None or stage.against in others
    require(is_other, f"{where}.against", f"name another stage, {others}", stage.against)


def _mapping(given: Any, where: str, known: tuple[str, ...]) -> dict[str, Any]:
    require(isinstance(given, dict), where, f"be a mapping of {', '.join(known)}", given)
    for key in given:
        require(key in known, where, f"have no key but {', '.join(known)}", key)
    mapping: dict[str, Any] = given
    return mapping


def _strings(given: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = given.get(key)
    items = [] if value is None else value if isinstance(value, list) else [value]
    require(all(isinstance(item, str) for item in items), where, "be a list of strings", value)
    return tuple(items)


def _named(text: str) -> Iterator[str]:
    return (found[1] for found in REFERENCE.finditer(text))


def _texts(value: Any) -> Iterator[str]:
    """Yield all strings of nested values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)

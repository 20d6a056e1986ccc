"""The words that every other folder speaks: batches, tasks, clock, schedules, protocols."""

from lit_mtdqn.types.batch import (
    PLAIN_COLUMNS,
    Array,
    Episodes,
    Feedback,
    Losses,
    Phase,
    Prediction,
    StepRow,
    Transition,
)
from lit_mtdqn.types.checks import NonFiniteError, require
from lit_mtdqn.types.clock import Clock
from lit_mtdqn.types.protocols import (
    ActionValues,
    ExperienceSource,
    Exploration,
    ExploringValues,
    HasCompilableUpdates,
    HasTargetNetwork,
    LabelsTransitions,
    PhaseCallback,
    ShowsLayers,
    UpdateCallback,
)
from lit_mtdqn.types.returns import ReturnSums
from lit_mtdqn.types.schedule import (
    Constant,
    Exponential,
    Linear,
    Schedule,
    Sigmoid,
    bounds_of,
    value_at,
)
from lit_mtdqn.types.task import (
    MEANING,
    TaskInfo,
    TaskInfos,
    TaskSpec,
    as_task_infos,
    as_task_specs,
)
from lit_mtdqn.types.task_scores import SCORE_KINDS, ScoreKind, TaskScores

__all__ = [
    "MEANING",
    "PLAIN_COLUMNS",
    "SCORE_KINDS",
    "ActionValues",
    "Array",
    "Clock",
    "Constant",
    "Episodes",
    "ExperienceSource",
    "Exploration",
    "ExploringValues",
    "Exponential",
    "Feedback",
    "HasCompilableUpdates",
    "HasTargetNetwork",
    "LabelsTransitions",
    "Linear",
    "Losses",
    "NonFiniteError",
    "Phase",
    "PhaseCallback",
    "Prediction",
    "ReturnSums",
    "Schedule",
    "ScoreKind",
    "ShowsLayers",
    "Sigmoid",
    "StepRow",
    "TaskInfo",
    "TaskInfos",
    "TaskScores",
    "TaskSpec",
    "Transition",
    "UpdateCallback",
    "as_task_infos",
    "as_task_specs",
    "bounds_of",
    "require",
    "value_at",
]

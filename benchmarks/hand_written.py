"""A multi-task DQN loop as one writes it by hand: no framework, nothing that the mathematics lacks.

It does the same work as a configuration of DQN, such as `configs/driving/three_tasks.yaml`: the
same environments, network, n-step fold, replay, targets, Adam, clipping and target copies, so its
time is what a framework's can be held against.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from torch import Tensor, nn
from torch.nn import functional as F

Array = np.ndarray


@dataclass(frozen=True)
class Settings:
    """Numbers of a run; the names are those of the configuration.

    `epsilon` is asked with a task's env steps, `learning_rate` for a factor with the updates so
    far. Of `planes`, as MinAtar's observations are, the first layer is a convolution.
    """

    envs: tuple[str, ...]
    num_envs: int
    phase_vector_steps: int
    updates: int
    batch_size: int
    gamma: float
    n_step: int
    hidden: tuple[int, ...]
    lr: float
    eps: float
    max_grad_norm: float | None
    sync_every: int
    epsilon: Callable[[int], float]
    capacity: int
    warmup: int = 0
    double: bool = True
    huber: bool = False
    planes: bool = False
    learning_rate: Callable[[int], float] | None = None


class Network(nn.Module):
    """A shared trunk and one linear head per task, those of several in one batched product."""

    def __init__(
        self,
        tasks: int,
        shape: tuple[int, ...],
        actions: int,
        hidden: tuple[int, ...],
        planes: bool,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if planes:
            layers = [nn.Conv2d(shape[0], 16, 3), nn.ReLU(), nn.Flatten()]
            shape = (16, shape[1] - 2, shape[2] - 2)
        for before, after in pairwise([math.prod(shape), *hidden]):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(hidden[-1], actions) if tasks == 1 else None
        if self.head is None:
            self.weight = nn.Parameter(torch.randn(tasks, hidden[-1], actions) * 1e-3)
            self.bias = nn.Parameter(torch.zeros(tasks, 1, actions))

    def forward(self, observation: Tensor) -> Tensor:
        """Return action values [T, N, A] for observations [T, N, *O]."""
        rows = observation.shape[:2]
        features = self.trunk(observation.flatten(0, 1).to(torch.float32))
        if self.head is not None:
            values: Tensor = self.head(features)
            return values.view(*rows, -1)
        return torch.baddbmm(self.bias, features.view(*rows, -1), self.weight)


def make_envs(name: str, num_envs: int) -> Any:
    """Return copies of an environment, in its batched form if it has one."""
    if gymnasium.spec(name).vector_entry_point is not None:
        return gymnasium.make_vec(name, num_envs, vectorization_mode="vector_entry_point")
    return SyncVectorEnv([partial(gymnasium.make, name, disable_env_checker=True)] * num_envs)


class HandWrittenLoop:
    """Plays and learns; `phase()` is one phase."""

    def __init__(self, settings: Settings, seed: int) -> None:
        torch.manual_seed(seed)
        self.settings = s = settings
        self.envs = [make_envs(name, s.num_envs) for name in s.envs]
        self.tasks = len(self.envs)
        resets = [env.reset(seed=seed + i)[0] for i, env in enumerate(self.envs)]
        self.observation = self._seen(resets)
        shape = self.observation.shape[2:]
        self.actions = int(self.envs[0].single_action_space.n)
        sizes = (self.tasks, shape, self.actions, s.hidden, s.planes)
        self.online, self.target = Network(*sizes), Network(*sizes)
        self.target.load_state_dict(self.online.state_dict())
        self.target.requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.online.parameters(), lr=s.lr, eps=s.eps, fused=True)
        self.random = np.random.default_rng(seed)
        self.ended = np.zeros((self.tasks, s.num_envs), bool)
        self.window: list[tuple[Array, ...]] = []
        self.updates = 0
        self.env_steps = np.zeros(self.tasks, np.int64)
        rows = (self.tasks, s.capacity)
        kind = torch.from_numpy(self.observation).dtype
        self.replay = {
            "observation": torch.zeros(*rows, *shape, dtype=kind),
            "action": torch.zeros(rows, dtype=torch.int64),
            "reward": torch.zeros(rows),
            "discount": torch.zeros(rows),
            "next_observation": torch.zeros(*rows, *shape, dtype=kind),
        }
        self.filled_by_task = np.zeros(self.tasks, np.int64)
        self.cursor_by_task = np.zeros(self.tasks, np.int64)

    def phase(self) -> None:
        """Play `phase_vector_steps`, at first until replays are warm; make `updates` updates."""
        self._play()
        while self.filled_by_task.min() < max(self.settings.warmup, 1):
            self._play()
        batch = self._sample()
        for k in range(self.settings.updates):
            self._update({name: tensor[k] for name, tensor in batch.items()})

    def act(self, observation: Array, task: int) -> Array:
        """Return greedy actions [N] for observations [N, *O] of one task."""
        every = np.repeat(self._seen([observation]), self.tasks, 0)
        chosen: Array = self._values(every)[task].argmax(-1)
        return chosen

    def _seen(self, observations: list[Array]) -> Array:
        stacked = np.stack(observations)
        if self.settings.planes:
            return np.ascontiguousarray(stacked.transpose(0, 1, 4, 2, 3), np.uint8)
        return stacked.astype(np.float32)

    @torch.no_grad()
    def _values(self, observation: Array) -> Array:
        values: Array = self.online(torch.from_numpy(observation)).numpy()
        return values

    def _play(self) -> None:
        for _ in range(self.settings.phase_vector_steps):
            self._step()
        self._store(self.settings.phase_vector_steps)

    def _step(self) -> None:
        epsilon = np.array([[self.settings.epsilon(int(steps))] for steps in self.env_steps])
        shape = (self.tasks, self.settings.num_envs)
        action = self.random.integers(0, self.actions, shape)
        if epsilon.min() < 1.0:
            explores = self.random.random(shape) < epsilon
            action = np.where(explores, action, self._values(self.observation).argmax(-1))
        stepped = [env.step(a) for env, a in zip(self.envs, action, strict=True)]
        following = self._seen([step[0] for step in stepped])
        reward = np.stack([step[1] for step in stepped]).astype(np.float32)
        terminated = np.stack([step[2] for step in stepped])
        truncated = np.stack([step[3] for step in stepped])
        row = (self.observation, action, reward, terminated, truncated, following, ~self.ended)
        self.window.append(row)
        self.env_steps += (~self.ended).sum(-1)
        self.observation, self.ended = following, terminated | truncated

    def _store(self, fresh: int) -> None:
        """Fold the window's rows into n-step transitions and write the finished ones."""
        s = self.settings
        columns = [np.stack(column) for column in zip(*self.window, strict=True)]
        observation, action, reward, terminated, truncated, following, valid = columns
        length = len(self.window)
        folded, discount = np.zeros_like(reward), np.ones_like(reward)
        going = np.ones(reward.shape, bool)
        last = np.broadcast_to(np.arange(length)[:, None, None], reward.shape).copy()
        for step in range(min(s.n_step, length)):
            rows = slice(0, length - step)
            here = going[rows]
            folded[rows] += np.where(here, discount[rows] * reward[step:], 0.0)
            factor = np.where(terminated[step:], 0.0, s.gamma)
            discount[rows] = np.where(here, discount[rows] * factor, discount[rows])
            if step:
                last[rows] += here
            going[rows] = here & ~(terminated | truncated)[step:] & (step + 1 < s.n_step)
        done = ~going & (last >= length - fresh) & valid
        for task in range(self.tasks):
            time, env = np.nonzero(done[:, task])
            start, end = (time, task, env), (last[time, task, env], task, env)
            self._write(task, observation[start], action[start], folded[start], discount[start],
                        following[end])  # fmt: skip
        self.window = self.window[length - s.n_step + 1 :] if s.n_step > 1 else []

    def _write(self, task: int, *columns: Array) -> None:
        rows, capacity = len(columns[0]), self.settings.capacity
        places = (self.cursor_by_task[task] + np.arange(rows)) % capacity
        index = torch.from_numpy(places)
        for tensor, column in zip(self.replay.values(), columns, strict=True):
            tensor[task][index] = torch.from_numpy(column)
        self.cursor_by_task[task] += rows
        self.filled_by_task[task] = min(self.filled_by_task[task] + rows, capacity)

    def _sample(self) -> dict[str, Tensor]:
        s = self.settings
        shape = (s.updates, self.tasks, s.batch_size)
        filled = torch.from_numpy(self.filled_by_task)[:, None]
        index = (torch.rand(shape) * filled).long()
        task = torch.arange(self.tasks)[:, None].expand(shape)
        return {name: tensor[task, index] for name, tensor in self.replay.items()}

    def _update(self, batch: dict[str, Tensor]) -> None:
        s = self.settings
        with torch.no_grad():
            following = batch["next_observation"]
            values = self.target(following)
            if s.double:
                choice = self.online(following).argmax(-1, keepdim=True)
                value = values.gather(-1, choice).squeeze(-1)
            else:
                value = values.amax(-1)
            target = batch["reward"] + batch["discount"] * value
        chosen = self.online(batch["observation"]).gather(-1, batch["action"][..., None])
        chosen = chosen.squeeze(-1)
        if s.huber:
            loss = F.huber_loss(chosen, target)
        else:
            loss = 0.5 * torch.square(chosen - target).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if s.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.online.parameters(), s.max_grad_norm, foreach=True)
        if s.learning_rate is not None:
            self.optimizer.param_groups[0]["lr"] = s.lr * s.learning_rate(self.updates)
        self.optimizer.step()
        self.updates += 1
        if self.updates % s.sync_every == 0:
            self.target.load_state_dict(self.online.state_dict())

"""A multi-task DQN loop as one writes it by hand: no framework, nothing that the mathematics lacks.

It does the same work as `configs/driving/three_tasks.yaml`: the same environments, network, n-step
fold, replay, Double targets, Adam, clipping and target copies, so its time is what a framework's
can be held against.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray


@dataclass(frozen=True)
class Settings:
    """Numbers of a run; the names are those of the configuration."""

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
    max_grad_norm: float
    sync_every: int
    epsilon: float
    capacity: int


class Network(nn.Module):
    """A shared trunk and one linear head per task, in one batched product."""

    def __init__(self, tasks: int, size: int, actions: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        widths = [size, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.weight = nn.Parameter(torch.randn(tasks, widths[-1], actions) * 1e-3)
        self.bias = nn.Parameter(torch.zeros(tasks, 1, actions))

    def forward(self, observation: Tensor) -> Tensor:
        """Return action values [T, N, A] for observations [T, N, O]."""
        return torch.baddbmm(self.bias, self.trunk(observation), self.weight)


class HandWrittenLoop:
    """Plays and learns; `phase()` is one phase."""

    def __init__(self, settings: Settings, seed: int) -> None:
        torch.manual_seed(seed)
        self.settings = s = settings
        self.envs: list[Any] = [
            gymnasium.make_vec(name, s.num_envs, vectorization_mode="vector_entry_point")
            for name in s.envs
        ]
        self.tasks = len(self.envs)
        self.size = int(np.prod(self.envs[0].single_observation_space.shape))
        self.actions = int(self.envs[0].single_action_space.n)
        self.online = Network(self.tasks, self.size, self.actions, s.hidden)
        self.target = Network(self.tasks, self.size, self.actions, s.hidden)
        self.target.load_state_dict(self.online.state_dict())
        self.target.requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.online.parameters(), lr=s.lr, eps=s.eps, fused=True)
        self.random = np.random.default_rng(seed)
        self.observation = np.stack(
            [env.reset(seed=seed + i)[0] for i, env in enumerate(self.envs)]
        ).astype(np.float32)
        self.ended = np.zeros((self.tasks, s.num_envs), bool)
        self.window: list[tuple[Array, ...]] = []
        self.updates = self.filled = self.cursor = 0
        shape = (self.tasks, s.capacity)
        self.replay = {
            "observation": torch.zeros(*shape, self.size),
            "action": torch.zeros(shape, dtype=torch.int64),
            "reward": torch.zeros(shape),
            "discount": torch.zeros(shape),
            "next_observation": torch.zeros(*shape, self.size),
        }
        self.filled_by_task = np.zeros(self.tasks, np.int64)
        self.cursor_by_task = np.zeros(self.tasks, np.int64)

    def phase(self) -> None:
        """Play `phase_vector_steps` and make `updates` updates."""
        fresh = 0
        for _ in range(self.settings.phase_vector_steps):
            self._step()
            fresh += 1
        self._store(fresh)
        batch = self._sample()
        for k in range(self.settings.updates):
            self._update({name: tensor[k] for name, tensor in batch.items()})

    @torch.no_grad()
    def _step(self) -> None:
        s = self.settings
        greedy = self.online(torch.from_numpy(self.observation)).numpy().argmax(-1)
        explored = self.random.integers(0, self.actions, greedy.shape)
        action = np.where(self.random.random(greedy.shape) < s.epsilon, explored, greedy)
        stepped = [env.step(a) for env, a in zip(self.envs, action, strict=True)]
        following = np.stack([step[0] for step in stepped]).astype(np.float32)
        reward = np.stack([step[1] for step in stepped]).astype(np.float32)
        terminated = np.stack([step[2] for step in stepped])
        truncated = np.stack([step[3] for step in stepped])
        row = (self.observation, action, reward, terminated, truncated, following, ~self.ended)
        self.window.append(row)
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
        with torch.no_grad():
            following = batch["next_observation"]
            choice = self.online(following).argmax(-1, keepdim=True)
            value = self.target(following).gather(-1, choice).squeeze(-1)
            target = batch["reward"] + batch["discount"] * value
        chosen = self.online(batch["observation"]).gather(-1, batch["action"][..., None])
        loss = 0.5 * torch.square(chosen.squeeze(-1) - target).mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(
            self.online.parameters(), self.settings.max_grad_norm, foreach=True
        )
        self.optimizer.step()
        self.updates += 1
        if self.updates % self.settings.sync_every == 0:
            self.target.load_state_dict(self.online.state_dict())

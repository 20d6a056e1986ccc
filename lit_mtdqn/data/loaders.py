"""What the Trainer iterates over: phases to train on, episodes to judge by."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset

Item = TypeVar("Item")

# Lightning warns of a length that workers could make wrong (there are none), of epochs shorter than
# the interval of logging (which here counts on across epochs), of nothing to evaluate, and of
# loaders without a state (which here is the data module's).
NO_NEWS = (
    r"Your `IterableDataset` has `__len__` defined",
    r"The number of training batches .* is smaller than the",
    r"Total length of `DataLoader` across ranks is zero",
    r"You're resuming from a checkpoint that ended before the epoch ended",
)


def ignore_loader_warnings() -> None:
    """Silence what Lightning says of loaders such as these."""
    for message in NO_NEWS:
        warnings.filterwarnings("ignore", message=message)


class _Items(IterableDataset[Item]):
    def __init__(self, make: Callable[[int], Item], length: int) -> None:
        self._make = make
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        return (self._make(index) for index in range(self._length))


def _as_is(item: Item) -> Item:
    return item


def sized_loader(make: Callable[[int], Item], length: int) -> DataLoader[Any]:
    """Return a loader that calls `make(index)` whenever the Trainer asks for its next item.

    It has a length, because without one Lightning fetches an item ahead, which would be played by
    the network of the phase before. It has a generator of its own, because a loader draws a number
    from the global one at every epoch.
    """
    return DataLoader(
        _Items(make, length),
        batch_size=None,
        collate_fn=_as_is,
        num_workers=0,
        generator=torch.Generator(),
    )

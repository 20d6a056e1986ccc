"""Assertions that several tests share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def complaint(name: str) -> str:
    """Return the pattern of a one-line complaint about an argument."""
    return rf"^`{re.escape(name)}` must [^\n]+ Got [^\n]+\Z"


def assert_table(actual: Tensor, expected: Any) -> None:
    """Assert that a tensor holds the expected numbers, up to float32 rounding."""
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype))


def assert_same_state(actual: nn.Module, expected: nn.Module) -> None:
    """Assert that two modules hold equal parameters and buffers."""
    assert_equal_tensors(actual.state_dict(), expected.state_dict())


def assert_equal_tensors(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Assert that two mappings, of mappings perhaps, hold equal tensors under equal names."""
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        if isinstance(value, Mapping):
            assert_equal_tensors(value, expected[name])
        elif isinstance(value, Tensor):
            assert torch.equal(value, expected[name]), name
        else:
            assert value == expected[name], name


def assert_no_gradient(tensors: Iterable[Tensor]) -> None:
    """Assert that no gradient has reached any of the tensors."""
    assert all(tensor.grad is None for tensor in tensors)


def count_parameters(module: nn.Module) -> int:
    """Return the number of single parameters."""
    return sum(parameter.numel() for parameter in module.parameters())

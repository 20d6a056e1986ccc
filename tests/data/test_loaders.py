import importlib
import warnings

import torch

from lit_mtdqn.data import loaders
from lit_mtdqn.data.loaders import ignore_loader_warnings, sized_loader


def test_an_item_is_made_when_it_is_asked_for_and_not_before() -> None:
    made: list[int] = []
    loader = sized_loader(made.append, 3)
    assert len(loader) == 3
    items = iter(loader)
    assert made == []
    for count in (1, 2, 3):
        next(items)
        assert made == list(range(count))


def test_items_arrive_as_they_were_made() -> None:
    made = [object(), {"tensor": torch.zeros(2)}]
    items = list(sized_loader(made.__getitem__, 2))
    assert all(item is original for item, original in zip(items, made, strict=True))


def test_every_pass_starts_from_the_first_item() -> None:
    loader = sized_loader(lambda index: index, 3)
    assert list(loader) == list(loader) == [0, 1, 2]


def test_a_pass_draws_nothing_from_the_global_generator() -> None:
    loader = sized_loader(lambda index: index, 3)
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_warnings_that_say_nothing_are_silenced() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("Your `IterableDataset` has `__len__` defined.", stacklevel=1)
        ignore_loader_warnings()
        warnings.warn("Your `IterableDataset` has `__len__` defined.", stacklevel=1)
        warnings.warn("Something else", stacklevel=1)
    assert [str(one.message)[:4] for one in caught] == ["Your", "Some"]


def test_an_import_silences_no_warning() -> None:
    before = list(warnings.filters)
    importlib.reload(loaders)
    assert list(warnings.filters) == before

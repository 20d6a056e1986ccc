import torch

from lit_mtdqn.functional.precision import full_precision


def test_products_keep_the_precision_of_their_factors_inside_and_lose_it_outside() -> None:
    matrix = torch.randn(4, 4)
    exact = matrix @ matrix
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full_precision(matrix.device):
            assert torch.equal(matrix @ matrix, exact)
        assert (matrix @ matrix).dtype == torch.bfloat16


def test_without_autocast_nothing_changes() -> None:
    with full_precision(torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")

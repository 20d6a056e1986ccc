import pytest

from lit_mtdqn.types import require


def test_a_met_condition_is_silent() -> None:
    require(True, "num_envs", "be at least 1", 4)


def test_a_broken_condition_names_the_argument_the_condition_and_the_value() -> None:
    with pytest.raises(ValueError, match=r"^`data.num_envs` must be at least 1\. Got 0\.\Z"):
        require(False, "data.num_envs", "be at least 1", 0)


def test_text_is_shown_in_quotes() -> None:
    with pytest.raises(ValueError, match=r"Got 'doubel'\.\Z"):
        require(False, "bootstrap", "be double or max", "doubel")

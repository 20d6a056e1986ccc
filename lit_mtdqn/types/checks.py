"""One form for every complaint about an argument, and one class for numbers that are none."""


class NonFiniteError(ArithmeticError):
    """Env steps, errors or gradients without numbers; what was learned before is on disk."""


def require(condition: bool, name: str, must: str, got: object) -> None:
    """Raise a `ValueError` that names the argument, the condition it breaks and the value found.

    Args:
        condition: True if the argument is valid.
        name: The argument as the user wrote it, for example `data.num_envs`.
        must: The condition, completing the sentence "`name` must ...".
        got: The value found.

    Raises:
        ValueError: If `condition` is false.
    """
    if not condition:
        raise ValueError(f"`{name}` must {must}. Got {got!r}.")

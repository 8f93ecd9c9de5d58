"""What the numbers mean that a module is made with, as its public copies are called."""

import math
from numbers import Integral, Real


def to_number(call: str, value: object) -> int | float:
    """`value` as a number; text too, since YAML 1.1 reads 1e-4 as text. Raises ValueError."""
    if isinstance(value, str):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                pass
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"{call} takes numbers, not {value!r}")


def setting(name: str, param: str, numbers: tuple, value: object) -> tuple[int, float | None]:
    """The channels and `param` of a module made as `name(*numbers, param=value)`.

    numbers: (C,), (C, param) or (C, C, param), as parsers that give the output's channels too.
    Raises ValueError for what could mean something else.
    """
    call = f"{name}({', '.join(map(repr, numbers))})"
    if not numbers:
        raise ValueError(f"{call}: the number of channels is missing")
    channels, *rest = [to_number(call, each) for each in numbers if each is not None]
    if len(rest) > 1 and rest[0] == channels:
        rest = rest[1:]  # the output's channels, which are the input's
    if len(rest) > 1 or (rest and rest[0] >= channels):
        raise ValueError(f"{call} may mean several things: write {name}({channels}, {param}=...)")
    if rest:
        return channels, rest[0]
    return channels, None if value is None else to_number(call, value)


def only_channels(name: str, numbers: tuple) -> int:
    """The channels of a module made as `name(*numbers)`; ValueError for what else is there."""
    if len(set(numbers)) != 1:  # one number, or the output's channels too
        raise ValueError(f"{name} takes the number of channels and no other, not {numbers}")
    return numbers[0]


def whole(name: str, value: float) -> int:
    """`value` as a count, called `name`; ValueError unless it is a whole number of at least 1."""
    if value < 1 or value != int(value):
        raise ValueError(f"{name} must be a whole number of at least 1, not {value:g}")
    return int(value)


def odd(name: str, value: float) -> int:
    """`value` as a kernel's size, called `name`; ValueError unless it is an odd number."""
    if value < 1 or value % 2 != 1:
        raise ValueError(f"{name} must be an odd number, not {value:g}")
    return int(value)


def e_lambda_of(numbers: tuple, value: object, default: float) -> float:
    """lambda of a SimAM made as `SimAM(*numbers, e_lambda=value)`; ValueError unless it is clear.

    Whole numbers are channels and say nothing; one that has a fraction is lambda.
    """
    words = [repr(each) for each in numbers] + ([] if value == default else [f"e_lambda={value!r}"])
    call = f"SimAM({', '.join(words)})"
    found = [] if value == default else [to_number(call, value)]
    for number in (to_number(call, each) for each in numbers if each is not None):
        if isinstance(number, float):
            if number.is_integer() and number > 0:
                raise ValueError(f"{call}: write e_lambda={number:g} if it is not channels")
            found.append(number)
        elif number < 1:
            raise ValueError(f"{call}: {number} is no number of channels; lambda is e_lambda=...")
    if len(found) > 1:
        raise ValueError(f"{call} names more than one e_lambda")
    e_lambda = float(found[0]) if found else default
    if not 0 < e_lambda < math.inf:
        raise ValueError(f"SimAM's e_lambda must be positive, not {e_lambda}")
    return e_lambda

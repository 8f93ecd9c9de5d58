"""A mistake is one line of a terminal, whatever words of a file are in it."""

import pytest

from utils.errors import UsageError, one_line, reason


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("für λ = 0.1", "für λ = 0.1"),
        ("two\nlines\r\tof\x1b[31m red", r"two\nlines\r\tof\x1b[31m red"),
        ("turned \u202e round", r"turned \u202e round"),
        ("no UTF-8: \udcff", r"no UTF-8: \udcff"),
    ],
)
def test_what_can_not_be_printed_is_escaped(text, shown):
    assert one_line(text) == shown
    assert str(UsageError(text)) == shown


def test_of_what_is_too_long_the_ends_are_shown():
    said = str(UsageError(f"checkpoint a.pth has {'x' * 10**6}; use another"))
    assert len(said) < 2100
    assert said.startswith("checkpoint a.pth has xxx")
    assert said.endswith("xxx; use another")


def test_a_reason_is_one_line():
    assert reason(ValueError("two\n  lines\x07")) == r"ValueError: two lines\x07"

import os
import signal

import pytest

from scripts.prepare.parallel import run_parallel
from utils.processes.ending import exit_code


def square(number: int) -> int:
    return number * number


def killed_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def failing_at_three(number: int) -> int:
    return 1 // (number - 3)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_item_has_its_result(workers):
    assert list(run_parallel(square, range(200), workers, "T")) == [n * n for n in range(200)]


def test_the_exception_of_an_item_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(run_parallel(failing_at_three, range(9), 2, "T"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_is_one_line(workers, capsys):
    # many items: it may be killed while others are still handed in
    assert exit_code(lambda: list(run_parallel(killed_at_three, range(2000), workers, "T"))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: a worker process was killed")
    assert "-j" in line


@pytest.fixture
def interruptible():
    """The handler that Python installs, except in a shell's background job."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_one_line(interruptible, capfd):
    def command():
        for _ in run_parallel(square, range(2000), 2, "T"):
            signal.raise_signal(signal.SIGINT)

    assert exit_code(command) == 130
    assert capfd.readouterr().err == "interrupted\n"

"""A command ends with its code, wherever its words go."""

import contextlib
import io

from utils.errors import UsageError
from utils.processes.ending import exit_code


def test_words_may_go_to_any_stream():
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert exit_code(lambda: print("done")) == 0
    assert said.getvalue() == "done\n"


def test_a_mistake_is_one_line_and_code_2(capsys):
    def fail():
        raise UsageError("there is no folder a\nb; create it first")

    assert exit_code(fail) == 2
    assert capsys.readouterr().err == "error: there is no folder a\\nb; create it first\n"

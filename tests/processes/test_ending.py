"""A command ends with its code, wherever its words go."""

import contextlib
import io

from utils.processes.ending import exit_code


def test_words_may_go_to_any_stream():
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert exit_code(lambda: print("done")) == 0
    assert said.getvalue() == "done\n"

"""Copies of SimAM, right and wrong, as they go round."""

import re
import sys

import pytest
import torch
from conftest import ROOT, run_python
from published import E_LAMBDA, PublishedSimAM
from torch import nn

from networks import SimAM, check, simam
from networks.attentions import SE
from networks.attentions.simam import simam_formula
from networks.check import main

HEAD = """
import torch
from torch import nn

class simam_module(nn.Module):
    def __init__(self, channels=None, e_lambda=1e-4):
        super().__init__()
        self.act = nn.Sigmoid()
        self.e_lambda = e_lambda

    def forward(self, x):
        b, c, h, w = x.size()
        n = w * h - 1
"""
AUTHORS = """
        d = (x - x.mean(dim=[2, 3], keepdim=True)).pow(2)
        y = d / (4 * (d.sum(dim=[2, 3], keepdim=True) / n + self.e_lambda)) + 0.5
        return x * self.act(y)
"""
# what is changed in the authors' code, and words of what is then said
WRONG = {
    "axis": ("dim=[2, 3]", "dim=[1]", "n = w * h - 1", "n = c - 1", "over the channels, not"),
    "rows": ("dim=[2, 3]", "dim=[3]", "n = w * h - 1", "n = w - 1", "over rows"),
    "batch": ("[2, 3]", "[0, 2, 3]", "w * h - 1", "b * w * h - 1", "over the batch too"),
    "brackets": (
        "(4 * (d.sum(dim=[2, 3], keepdim=True) / n + self.e_lambda))",
        "(4 * d.sum(dim=[2, 3], keepdim=True) / n + self.e_lambda)",
        "",
        "",
        "no brackets around v",
    ),
    "H*W": ("n = w * h - 1", "n = w * h", "", "", "divided by H*W, in the paper's code by"),
    "half": (" + 0.5", "", "", "", "no 1/2 is added"),
    "weights": ("return x * ", "return ", "", "", "returns the weights"),
    "float16": ("", "", "", "", "in float16 it collapses, its weights lie in 0.6"),
    "1x1": ("", "", "", "", "one position gives NaN"),
    "another": ("pow(2)", "abs()", "", "", "no formula near Eq. 5"),
    "shape": ("return x *", "return x[:, :1] *", "self.act(y)", "self.act(y)[:, :1]", "it makes "),
    "error": ("self.act(", "self.gone(", "", "", "it fails: AttributeError"),
}


def load(text: str) -> type:
    names = {"__name__": "copied"}
    exec(text, names)
    return names["simam_module"]


@pytest.mark.parametrize("case", WRONG)
def test_says_what_is_wrong(case):
    *changes, said = WRONG[case]
    head, body = HEAD, AUTHORS
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        if old:
            head, body = head.replace(old, new), body.replace(old, new)
    faults = check(load(head + body))
    assert any(said in fault for fault in faults), faults


def test_two_faults_at_once():
    whole = (HEAD + AUTHORS).replace("w * h - 1", "w * h").replace(" + 0.5", "")
    assert len(check(load(whole))) == 2


@pytest.mark.parametrize(
    "copy",
    [SimAM, SimAM(0.1), SimAM(e_lambda=0.03), simam, simam_formula],
    ids=["class", "0.1", "0.03", "operator", "formula"],
)
def test_ours_is_right(copy):
    assert check(copy) == []


def test_lambda_may_be_said():
    assert check(lambda x: simam(x, 0.03)) != []
    assert check(lambda x: simam(x, 0.03), e_lambda=0.03) == []
    assert check(lambda x: simam(x, 0.1)) == []


def test_the_authors_code_is_right_in_float32_alone():
    faults = check(PublishedSimAM)
    assert len(faults) == 2
    assert "float16" in faults[0]
    assert "one position" in faults[1]


def test_float16_is_as_the_readme_says():
    """Its table: size, deviation, the largest error of the authors' lines and of ours."""
    row = re.compile(r"^\| (\d+)x\1 \| ([\d.]+) \| [^|]*, ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)
    rows = row.findall((ROOT / "networks" / "README.md").read_text())
    assert len(rows) == 3
    for size, deviation, theirs, ours in rows:
        x = (torch.randn(1, 2, int(size), int(size)) * float(deviation)).half()
        exact = simam_formula(x.double(), E_LAMBDA)
        for y, printed in ((PublishedSimAM()(x), theirs), (simam(x, E_LAMBDA), ours)):
            apart = (y.double() - exact).abs().max().item()
            assert float(printed) / 2 < apart < float(printed) * 2


def test_another_module_is_told_apart():
    assert "no formula near" in check(SE(6).double())[0]
    with pytest.raises(ValueError, match="Two.* wants more arguments"):
        check(type("Two", (nn.Module,), {"__init__": lambda self, a, b, c: None}))


@pytest.fixture
def said(capsys, monkeypatch):
    """Its exit code, what it prints, and what it says on standard error, of a command."""

    def run(word) -> tuple[int, str, str]:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "path", [*sys.path])
            code = main([str(word)])
        return code, *capsys.readouterr()

    return run


def test_the_command(tmp_path, said):
    file = tmp_path / "copy.py"
    file.write_text(HEAD + AUTHORS.replace(" + 0.5", "") + "\ndef other(x):\n    return x\n")
    assert said(file) == (1, "simam_module: wrong\n  - no 1/2 is added inside the sigmoid\n", "")
    code, out, _ = said(f"{file}:other")
    assert (code, out.splitlines()[0]) == (1, "other: wrong")
    file.write_text("import networks\nclass SimAM(networks.SimAM):\n    pass\n")
    done = run_python("-W", "error::RuntimeWarning", "-m", "networks.check", file)
    assert (done.returncode, done.stdout) == (0, "SimAM: right\n")


def test_the_command_says_in_one_line_what_it_cannot_check(tmp_path, said):
    file = tmp_path / "copy.py"
    file.write_text("def other(x):\n    return x\n")
    broken = tmp_path / "broken.py"
    broken.write_text("def other(:\n")
    for word, reason in {
        tmp_path / "none.py": "no such file",
        file: "has no SimAM; its classes and functions: other",
        f"{file}:SimAN": "has no SimAN",
        broken: "can't be imported (SyntaxError",
    }.items():
        code, out, error = said(word)
        assert (code, out, error.count("\n")) == (2, "", 1)
        assert reason in error


def test_nothing_is_changed():
    state = torch.get_rng_state()
    module = SimAM().train()
    check(module)
    assert torch.equal(torch.get_rng_state(), state)
    assert module.training

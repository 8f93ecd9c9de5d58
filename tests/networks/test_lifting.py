"""The folder `attentions`, copied and reloaded: one operator, however many copies meet."""

import shutil
from pathlib import Path

import pytest
from conftest import ROOT, run_python

from networks import list_attentions


def python(folder: Path, code: str) -> str:
    """What `code` prints in a process of its own, which runs in `folder`."""
    code = "import sys; sys.path.insert(0, '.')\n" + code
    done = run_python("-P", "-c", code, cwd=folder, PYTHONPATH="")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def copied(tmp_path) -> Path:
    """A project with the folder in a package of its own, which has nothing else."""
    package = tmp_path / "detector" / "nn"
    shutil.copytree(ROOT / "networks" / "attentions", package / "attentions")
    return tmp_path


USE = """
import torch
x = torch.randn(2, 3, 5, 4, requires_grad=True)
def use(simam):
    y = simam(x, 0.1)
    return y.detach(), torch.autograd.grad(y.square().sum(), x)[0]
def same(one, other):
    return all(map(torch.equal, use(one), use(other)))
"""


def test_a_copied_folder_works_alone(copied):
    code = USE + "from detector.nn.attentions import create_attention, list_attentions, simam\n"
    code += "print([create_attention(n, 32)(torch.ones(2, 32, 4, 4)).shape[1] for n in "
    code += "list_attentions()], len(use(simam)), 'networks' in sys.modules)"
    assert python(copied, code) == f"{[32] * len(list_attentions())} 2 False\n"


def test_copies_meet_in_one_process(copied):
    shutil.copytree(ROOT / "networks", copied / "simam")
    code = USE + "from detector.nn.attentions import simam as one\nfrom simam import simam as two\n"
    code += f"sys.path.append({str(ROOT)!r})\nfrom networks import simam as three\n"
    code += "print(one is not two, two is not three, same(one, two), same(two, three))"
    assert python(copied, code) == "True True True True\n"


def test_modules_are_reloaded_as_notebooks_do(copied):
    code = USE + "import importlib\nfrom detector.nn import attentions\nfirst = attentions.simam\n"
    code += "importlib.reload(sys.modules['detector.nn.attentions.simam'])\n"
    code += "importlib.reload(attentions)\nprint(first is not attentions.simam, "
    code += "same(first, attentions.simam))"
    assert python(copied, code) == "True True\n"

"""How the C kernels are built, kept, and done without."""

import stat

import pytest
from conftest import run_python

USE = """
import warnings, torch
from torch import nn
from networks.attentions import SimAM, native, simam_norm_act
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    x = torch.randn(2, 5, 6, 7, requires_grad=True)
    for _ in range(2):
        y = simam_norm_act(SimAM()(x), SimAM(), nn.BatchNorm2d(5), nn.ReLU())
        y.sum().backward()
print(native.library() is not None, len(caught))
for each in caught:
    print(each.message)
"""


def use(**environment):
    done = run_python("-c", USE, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_built_once_and_kept_for_this_user_alone(tmp_path):
    assert use(XDG_CACHE_HOME=str(tmp_path)) == ["True 0"]
    folder = tmp_path / "simam"
    (library,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    built = library.stat().st_mtime_ns
    assert use(XDG_CACHE_HOME=str(tmp_path)) == ["True 0"]
    assert library.stat().st_mtime_ns == built
    assert list(folder.iterdir()) == [library]


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"CC": "no-such-compiler"}, "no-such-compiler"),
        ({"CC": "false"}, "exit status 1"),
        ({"XDG_CACHE_HOME": "/proc"}, "/proc/simam"),
    ],
)
def test_plain_pytorch_serves_without_it(environment, reason, tmp_path):
    found, warning = use(**{"XDG_CACHE_HOME": str(tmp_path)} | environment)
    assert found == "False 1"
    assert "computed by plain PyTorch, slower" in warning
    assert reason in warning


def test_a_folder_that_others_may_write_to_is_not_trusted(tmp_path):
    folder = tmp_path / "simam"
    folder.mkdir()
    folder.chmod(0o777)
    found, warning = use(XDG_CACHE_HOME=str(tmp_path))
    assert found == "False 1"
    assert f"others can write to {folder}" in warning

"""The wheel: one package, which needs torch alone, beside projects that have the same names."""

import shutil
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, run_python

pytestmark = pytest.mark.slow


def pip(*words) -> None:
    quiet = ("--quiet", "--disable-pip-version-check")
    done = run_python("-m", "pip", *quiet, *words)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("networks", "utils", "scripts"):
        ignored = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for stale in ("simam/gone.py", "networks/resnet.py"):  # left by an earlier version
        (source / "build/lib" / stale).parent.mkdir(parents=True)
        (source / "build/lib" / stale).touch()
    pip("wheel", source, "--wheel-dir", folder, "--no-build-isolation", "--no-deps", "--no-index")
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory) -> Path:
    """A folder of installed packages that has this one alone."""
    folder = tmp_path_factory.mktemp("installed") / "site"
    pip("install", wheel, "--target", folder, "--no-deps", "--no-index")
    return folder


def test_holds_one_package_with_all_its_files(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"simam"}
    kept = {".py", ".c", ".h"}
    files = [f for f in (ROOT / "networks").rglob("*") if f.suffix in kept]
    assert {f"simam/{f.relative_to(ROOT / 'networks')}" for f in files} <= set(names)
    assert "simam/gone.py" not in names
    assert wheel.stat().st_size < 200_000
    (metadata,) = (name for name in names if name.endswith("METADATA"))
    needed = [
        line.split()[1]
        for line in zipfile.ZipFile(wheel).read(metadata).decode().splitlines()
        if line.startswith("Requires-Dist:") and "extra ==" not in line
    ]
    assert needed == ["torch>=2.6"]


USE = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torchvision", "triton", "timm", "PIL"}:
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Blocked())
sys.path[:0] = ["project", sys.argv[1]]
import networks, scripts, utils
import torch
from simam import SimAM, check, create_model, insert, simam, simam_module

assert networks.OWN == utils.OWN == scripts.OWN == "the project's"
net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
assert insert(net, after="0") == ["0"]
net(torch.randn(2, 3, 9, 9)).sum().backward()
assert create_model("resnet18", "simam")(torch.randn(1, 3, 64, 64)).shape == (1, 1000)
assert check(SimAM) == check(simam) == []
print(sys.modules["simam"].__file__)
"""


def test_is_used_from_a_project_with_the_same_names(site, tmp_path):
    project = tmp_path / "project"
    for name in ("utils", "scripts"):
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text('OWN = "the project\'s"\n')
    (project / "networks.py").write_text('OWN = "the project\'s"\n')
    done = run_python("-W", "error", "-I", "-c", USE, site, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).samefile(site / "simam" / "__init__.py")


def test_the_command_runs(site, tmp_path):
    (tmp_path / "copy.py").write_text("def simam(x):\n    return x\n")
    done = run_python("-W", "error", "-m", "simam.check", tmp_path / "copy.py", cwd=site)
    assert done.stdout.startswith("simam: wrong\n"), done.stderr


def test_uninstalling_removes_it_all(wheel, tmp_path):
    venv.create(tmp_path, symlinks=True)
    python = ("--python", tmp_path / "bin" / "python")

    def files():
        return {path for path in tmp_path.rglob("*") if path.is_file()}

    before = files()
    pip(*python, "install", wheel, "--no-deps", "--no-index")
    # lib/python3.N/site-packages/NAME
    tops = {path.relative_to(tmp_path).parts[3] for path in files() - before}
    assert {name.partition("-")[0] for name in tops} == {"simam"}
    pip(*python, "uninstall", "--yes", "simam")
    assert files() == before

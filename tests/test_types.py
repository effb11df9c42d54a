"""What a user's type checker learns from the wheel."""

import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """\
from hydragen_tree import Sampler, SamplingSettings, load_problems
from hydragen_kernels import reference

reveal_type(Sampler.from_pretrained)
sampler = Sampler.from_pretrained("tiny")
for sample in sampler.sample(load_problems(["a.yaml"]), 10, SamplingSettings(temperature=1.0)):
    reveal_type(sample.completion)
sampler.sample([], "10")
"""


@pytest.mark.slow
def test_the_wheel_tells_a_users_type_checker_everything(tmp_path: Path) -> None:
    """mypy --strict on a script, in an environment that holds the wheel and nothing else."""
    pytest.importorskip("setuptools")
    pytest.importorskip("mypy")
    source = tmp_path / "source"
    waste = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.safetensors")
    for folder in ("hydragen_tree", "kernels", "cli"):
        shutil.copytree(ROOT / folder, source / folder, ignore=waste)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    home = tmp_path / "venv"
    venv.create(home, symlinks=True)
    (packages,) = home.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable"]
    ran = subprocess.run(
        [*command, str(home / "bin" / "python"), "--no-incremental", "script.py"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    first, second, wrong, _ = ran.stdout.splitlines()
    assert 'Revealed type is "def (model: str' in first
    assert "-> hydragen_tree.sample.sampler.Sampler" in first
    assert 'Revealed type is "str"' in second
    assert "script.py:8: error: Argument 2" in wrong

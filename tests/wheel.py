"""Installs the built wheel and the built sdist, each in a bare environment, and runs `cmt` there.

    python tests/wheel.py build/wheel

An environment holds the dependencies of pyproject.toml without extras, and nothing else: they are
links to the packages of the Python that runs this script, so that nothing big is downloaded. The
default model must be pulled. Exits with 1 where a command fails or prints something else.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
NOTE = "The museum moved to Lisbon in 2019."
QUESTION = "Where did the museum move?"


def dependencies() -> dict[str, importlib.metadata.Distribution]:
    """What cmt-sdk needs without extras, and all that these need, by name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    pending = list(_requirements(importlib.metadata.distribution("cmt-sdk"), set()))
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if name in found and not requirement.extras:
            continue
        found[name] = importlib.metadata.distribution(name)
        pending += _requirements(found[name], requirement.extras)
    return found


def _requirements(
    distribution: importlib.metadata.Distribution, extras: set[str]
) -> Iterator[Requirement]:
    """The requirements of a distribution that hold on this machine with these extras."""
    for requirement in map(Requirement, distribution.requires or ()):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": e}) for e in [*sorted(extras), ""]):
            yield requirement


def make_environment(folder: Path) -> Path:
    """An environment with links to the dependencies; returns its Python."""
    venv.create(folder, clear=True, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    for distribution in dependencies().values():
        for name in {Path(file).parts[0] for file in distribution.files or ()} - {
            "..",
            "__pycache__",
        }:
            target = Path(str(distribution.locate_file(name))).resolve()
            if target.exists() and not (site / name).exists():
                (site / name).symlink_to(target)
    return folder / "bin" / "python"


def build(folder: Path) -> list[Path]:
    """The wheel and the sdist."""
    _run([_uv(), "build", "--quiet", "--out-dir", str(folder), str(ROOT)], dict(os.environ))
    return [*folder.glob("*.whl"), *folder.glob("*.tar.gz")]


def _uv() -> str:
    return str(Path(sys.executable).with_name("uv"))


def _run(command: list[str], environment: dict[str, str]) -> str:
    """Run a command outside the repository and return what it prints; exits where it fails."""
    done = subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def check(package: Path, folder: Path) -> None:
    """Install a package and let it remember and answer."""
    python = make_environment(folder / "env")
    _run(
        [_uv(), "pip", "install", "-q", "--no-deps", "--python", str(python), str(package)],
        dict(os.environ),
    )
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}
    environment |= {"CMT_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", "CMT_KEEP_ALIVE": "0"}
    cmt = str(python.with_name("cmt"))
    version = _run([str(python), "-c", "import cmt_sdk; print(cmt_sdk.__version__)"], environment)
    outputs = {
        version.strip(): _run([cmt, "--version"], environment),
        "added": _run([cmt, "add", "--text", NOTE, "--source", "trip.md"], environment),
        "Lisbon": _run([cmt, "ask", QUESTION], environment),
    }
    wrong = {expected: printed for expected, printed in outputs.items() if expected not in printed}
    if wrong:
        raise SystemExit(f"{package.name}: {wrong}")
    print(f"{package.name}: installed, remembers and answers")


def main(folder: Path) -> None:
    """Build both packages and check them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for package in build(folder / "dist"):
        check(package, folder / package.name.partition("-")[0] / package.suffix.strip("."))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())

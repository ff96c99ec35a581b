"""What pyproject.toml packs is what is there. `make wheel-test` runs the packages themselves."""

import tomllib

from tests.docs.blocks import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = {"cmt_sdk": "cmt_sdk", "cli": "cmt_cli", "adapters": "cmt_adapters"}


def test_every_folder_of_modules_is_packed():
    """A package that is missing in the list fails only where the wheel is installed."""
    there = {
        ".".join([package, *file.relative_to(ROOT / folder).parts[:-1]])
        for folder, package in FOLDERS.items()
        for file in (ROOT / folder).rglob("*.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == there


def test_every_data_file_is_packed():
    """Each file next to the modules that is no module fits a pattern of package-data."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    packed = {
        path
        for package, globs in patterns.items()
        for folder, name in FOLDERS.items()
        if package.partition(".")[0] == name
        for glob in globs
        for path in ROOT.joinpath(folder, *package.split(".")[1:]).glob(glob)
    }
    there = {
        path
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert {str(p.relative_to(ROOT)) for p in there - packed} == set()

"""What the tests of the command line share: `cmt`, which runs a command over real memories with a
fake language model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import save_file

from cmt_cli.main import main
from cmt_sdk.testing.fakes import open_fake


@dataclass
class Command:
    """Runs `cmt` in this process, in an empty home."""

    home: Path
    opener: Any = open_fake

    def __call__(
        self, *arguments: object, stdin: str | bytes | None = None, code: int | None = 0
    ) -> Result:
        """Run one command and check its exit code, unless it is None; what it does not turn into
        one is raised.
        """
        done = CliRunner().invoke(
            main, list(map(str, arguments)), input=stdin, obj=self.opener, catch_exceptions=False
        )
        assert code in (None, done.exit_code), done.output
        return done

    def json(self, *arguments: object, **options: Any) -> Any:
        """The JSON document that a command prints."""
        return json.loads(self(*arguments, "--json", **options).stdout)


@pytest.fixture
def cmt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`cmt` in a home and with a model folder of its own, both empty."""
    monkeypatch.setenv("CMT_HOME", str(tmp_path / "data_dir"))
    monkeypatch.setenv("CMT_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("CMT_MEMORY", raising=False)
    monkeypatch.delenv("CMT_KEY", raising=False)
    return Command(tmp_path / "data_dir")


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder that looks like a base model."""
    folder = tmp_path / "tiny-model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    save_file({"w": np.zeros(4, np.float32)}, folder / "model.safetensors")
    return folder

"""A program: ask the Hugging Face hub for the files of a model, and fetch them.

    python -P hub.py plan ORG/NAME
    python -P hub.py fetch ORG/NAME COMMIT FOLDER FILE ...

`plan` prints {"commit", "licence", "files": [{name, bytes, sha256}]}. `download` runs the program
in a process of its own, as a file, so that it needs nothing of this package: it can be killed at
once, and the errors of any release of the hub's client come back as one line of text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def plan(name: str) -> dict[str, Any]:
    """The newest commit of a model, its licence, and its files with their sizes."""
    from huggingface_hub import HfApi, constants

    wait = constants.HF_HUB_ETAG_TIMEOUT  # seconds; without it the client waits for ever
    info = HfApi().model_info(name, files_metadata=True, timeout=wait)
    files = [
        {
            "name": file.rfilename,
            "bytes": file.size or 0,
            "sha256": file.lfs.sha256 if file.lfs else None,
        }
        for file in info.siblings
    ]
    licence = getattr(info.card_data, "license", None) or []
    licences = [licence] if isinstance(licence, str) else licence
    return {"commit": info.sha, "licence": ", ".join(licences), "files": files}


def fetch(name: str, commit: str, folder: str, files: list[str]) -> None:
    """Download these files of one commit into a folder; resumes an interrupted call."""
    from huggingface_hub import snapshot_download

    snapshot_download(name, revision=commit, local_dir=folder, allow_patterns=files)


@contextmanager
def plain_errors(name: str) -> Iterator[None]:
    """End the program with one line where the hub does not show a repository."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        yield
    except GatedRepoError as error:
        sys.exit(f"ERROR: {name} is gated: its terms must be accepted on its page ({_code(error)})")
    except RepositoryNotFoundError as error:
        sys.exit(f"NOT FOUND: the hub has no model {name}, or keeps it private ({_code(error)})")


def _code(error: Any) -> str:
    return f"HTTP {error.response.status_code}"


if __name__ == "__main__":
    with plain_errors(sys.argv[2]):
        if sys.argv[1] == "plan":
            sys.stdout.write(json.dumps(plan(sys.argv[2])))
        else:
            fetch(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:])

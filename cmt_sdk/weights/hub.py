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
from typing import Any


def plan(name: str) -> dict[str, Any]:
    """The newest commit of a model, its licence, and its files with their sizes."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(name, files_metadata=True)
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


if __name__ == "__main__":
    if sys.argv[1] == "plan":
        sys.stdout.write(json.dumps(plan(sys.argv[2])))
    else:
        fetch(sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:])

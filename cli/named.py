"""What the settings model, adapter and device name on this machine, looked at without loading any
of it. Knows no memory.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import cmt_sdk
from cmt_cli.inputs import is_there
from cmt_sdk.errors import InvalidSetting, ModelNotFound

ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def whole_adapter(name: str) -> str:
    """An adapter as it is recorded: "default", "none", or the whole path of a folder that is one.
    Raises InvalidSetting.
    """
    if name in ("default", "none"):
        return name
    folder = _whole(name)
    if not cmt_sdk.is_adapter(folder):
        raise InvalidSetting(
            f"adapter {folder}: this folder holds no adapter; give default, none, or a folder"
            " of `cmt train`"
        )
    return folder


def whole_model(name: str) -> str:
    """A model as it is recorded: of a local folder or a .gguf file the whole path."""
    path = _whole(name)
    is_file = name.lower().endswith(".gguf") and is_there(path)
    return (
        path if is_file or (name.strip() and is_there(os.path.join(path, "config.json"))) else name  # noqa: PTH118 - as _whole
    )


def model_doubt(name: str) -> str:
    """What is still to be done for a model, as `whole_model` gives it; empty where it is here.

    Raises InvalidSetting for what cannot be pulled either, ModelUnsupported.
    """
    try:
        cmt_sdk.model_info(name)
    except ModelNotFound as error:
        if (
            name == cmt_sdk.Settings().model
            or ON_HUB.fullmatch(name)
            or (name.lower().endswith(".gguf") and is_there(name))
        ):
            return f"model {name!r} is not here yet: cmt model pull {name}"
        raise InvalidSetting(
            f"model {name!r}: nothing here is called that; give one of `cmt model list`,"
            " organisation/name, or the path of a folder or .gguf file"
        ) from error
    return ""


def device_doubt(name: str) -> str:
    """Why a device cannot be used here; empty where nothing speaks against it."""
    if name.partition(":")[0] != "cuda" or has_cuda():
        return ""
    return f"device {name!r}: this torch or this machine has no CUDA; auto takes what there is"


def has_cuda() -> bool:
    """Whether torch is built for GPUs (ROCm's are called cuda too) and, on Linux, NVIDIA's driver
    is here. Imports no torch.
    """
    found = find_spec("torch")
    if found is None or found.origin is None:
        return False
    try:
        version = Path(found.origin).with_name("version.py").read_text("utf-8")
    except OSError:  # built in another way: it is only a doubt
        return True
    built = re.findall(r"^(cuda|hip)\b[^=]*= *['\"]", version, re.MULTILINE)
    return "hip" in built or ("cuda" in built and _has_driver())


def _has_driver() -> bool:
    if sys.platform != "linux":
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _whole(path: str) -> str:
    """The whole path. A ~ that stands for nobody's home stays as it is, where pathlib raises."""
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - for that reason

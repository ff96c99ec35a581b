"""Look up the model, adapter and device of a setting on this machine, without loading anything.

Opens no memory and imports no torch.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import cmt_sdk
from cmt_cli.inputs import path_exists
from cmt_sdk.errors import InvalidSetting, ModelNotFound

# organisation/name, or one file of it: organisation/name:file.gguf
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[A-Za-z0-9][\w./-]*\.gguf)?", re.ASCII)


def resolve_adapter(name: str) -> str:
    """Return an adapter as a memory records it: "default", "none", or an absolute path.

    Raises:
        InvalidSetting: The folder is not an adapter.
    """
    if name in ("default", "none"):
        return name
    folder = _absolute(name)
    if not cmt_sdk.is_adapter(folder):
        raise InvalidSetting(
            f"adapter {folder}: this folder holds no adapter; give default, none, or a folder"
            " of `cmt train`"
        )
    return folder


def resolve_model(name: str) -> str:
    """Return a model as a memory records it: a name, or the absolute path of a local model."""
    path = _absolute(name)
    is_file = name.lower().endswith(".gguf") and path_exists(path)
    is_folder = path_exists(os.path.join(path, "config.json"))  # noqa: PTH118 - as _absolute
    return path if is_file or (name.strip() and is_folder) else name


def model_warning(name: str) -> str:
    """Return a warning if a model has to be pulled first; "" if it is on this machine.

    Args:
        name: A model as `resolve_model` returns it.

    Raises:
        InvalidSetting: The model is neither here nor can it be pulled.
        ModelUnsupported: The model is here but cannot be used.
    """
    try:
        cmt_sdk.model_info(name)
    except ModelNotFound as error:
        if (
            name in {entry.name for entry in cmt_sdk.catalogue()}
            or HUB_ID.fullmatch(name)
            or (name.lower().endswith(".gguf") and path_exists(name))
        ):
            return f"model {name!r} is not here yet: cmt model pull {name}"
        raise InvalidSetting(
            f"model {name!r}: there is no such model here; give one of `cmt model list --all`,"
            " organisation/name, or the path of a folder or .gguf file"
        ) from error
    return ""


def device_warning(name: str) -> str:
    """Return a warning if a device cannot be used here; "" if it probably can."""
    if name.partition(":")[0] != "cuda" or has_cuda():
        return ""
    return f"device {name!r}: this torch or this machine has no CUDA; auto takes what there is"


def has_cuda() -> bool:
    """Return whether torch is built for GPUs and, on Linux, NVIDIA's driver is installed.

    ROCm devices are called cuda too. Reads torch's version file instead of importing torch.
    """
    found = find_spec("torch")
    if found is None or found.origin is None:
        return False
    try:
        version = Path(found.origin).with_name("version.py").read_text("utf-8")
    except OSError:  # torch was built in another way; this is only a warning
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


def _absolute(path: str) -> str:
    """Return the absolute path. `~name` of an unknown user stays; pathlib would raise."""
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - for that reason

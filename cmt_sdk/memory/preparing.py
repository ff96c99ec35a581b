"""Prepares a pulled model for this machine's CPU, and checks its files."""

from __future__ import annotations

from cmt_sdk.config.settings import Settings
from cmt_sdk.errors import ModelError, ModelNotFound
from cmt_sdk.memory.local_engine import LocalEngine
from cmt_sdk.types import CheckResult
from cmt_sdk.weights.registry import model_info


def prepare_model(name: str) -> bool:
    """Build the graph with which onnxruntime reads a model on this machine's CPU.

    It takes the model's weights in 8 bits on the disk. One that is damaged, or of an earlier
    version, is built again. The first memory that reads a pulled model builds it; this does so
    beforehand.

    Args:
        name: A pulled model, or a local folder.

    Returns:
        False where torch reads instead: for a model of another shape than Llama's or Qwen's, with
        adapters other than plain LoRA, or on a machine with a GPU.

    Raises:
        ModelNotFound: The model is not on this machine.
        ModelUnsupported: The graph would read otherwise than the model does.
        ModelError: The graph cannot be written.
    """
    return LocalEngine(Settings(model=name, runtime="onnx")).has_graph


def check_model(name: str) -> CheckResult:
    """Whether a model is on this machine, as it was pulled and prepared; every byte is read.

    Args:
        name: A pulled model, or a local folder.
    """
    from cmt_sdk.cpu.files import damaged, folder_of

    try:
        info = model_info(name)
    except (ModelNotFound, ModelError) as error:
        return CheckResult("model", False, str(error), f"cmt model pull {name}")
    wrong = damaged(info)
    if wrong:
        detail = f"prepared for this machine's CPU, but damaged since: {', '.join(wrong)}"
        remedy = f"delete {folder_of(info)}: it is built again"
        return CheckResult("model", False, f"{info.name}, {detail}", remedy)
    return CheckResult("model", True, f"{info.name}, {info.bytes / 1e6:.0f} MB")

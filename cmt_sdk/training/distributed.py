"""The processes of one training run.

`torchrun --nproc_per_node 2 -m cmt_cli.main -- train ...` (or `accelerate launch --multi_gpu`)
starts several; otherwise there is one. They exchange tensors and values through accelerate, which
is not imported where there is one process. A run may have more processes than GPUs, where one core
cannot launch kernels as fast as a GPU runs them: NCCL refuses that, so they exchange by gloo.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Workers:
    """This process among the others: `rank` of `size`.

    All processes must call `sum`, `gather` and `agree`, in the same order: each waits for all.
    """

    def __init__(self) -> None:
        # torchrun and accelerate tell each process these numbers.
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.size > 1:
            from accelerate import PartialState

            self._state = PartialState(cpu=self.on_one_gpu > 1 or not torch.cuda.is_available())

    @property
    def on_one_gpu(self) -> int:
        """How many of this machine's processes share a GPU; 1 where each has its own."""
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", self.size))
        return -(-processes // max(1, torch.cuda.device_count()))  # rounded up

    @property
    def is_main(self) -> bool:
        """True for the process that writes files and reports progress."""
        return self.rank == 0

    def device(self, wanted: str) -> str:
        """This process's device: `wanted`, or with several processes the GPUs in turn.

        Args:
            wanted: A device of torch, or "auto".
        """
        several = self.size > 1 and wanted in ("auto", "cuda") and torch.cuda.is_available()
        if not several:
            return wanted
        number = int(os.environ.get("LOCAL_RANK", self.rank)) % torch.cuda.device_count()
        return f"cuda:{number}"

    def sum(self, value: Tensor) -> Tensor:
        """The sum of all processes' tensors, of one shape, on the device of `value`."""
        if self.size == 1:
            return value
        from accelerate.utils import reduce

        total: Tensor = reduce(value.to(self._state.device), "sum")
        return total.to(value.device)

    def gather(self, value: object) -> list[Any]:
        """The values of all processes, by rank; any that pickle can write."""
        if self.size == 1:
            return [value]
        from accelerate.utils import gather_object

        return list(gather_object([value]))

    def agree(self, decision: bool) -> bool:
        """The main process's decision, in every process."""
        return bool(self.gather(decision)[0])

    def share(self, values: Sequence[Any]) -> Any:
        """This process's part of the values that `gather` returned."""
        return values[self.rank]

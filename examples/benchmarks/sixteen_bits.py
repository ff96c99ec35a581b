"""The figures of memories that keep 16 bits a value, to compare with those in 4 bits:
sixteen_bits.py FILE [options of cmt eval].

Only this process is changed, and only in what is stored of a kept entry: half-precision numbers
instead of codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cmt_cli.main import main
from cmt_sdk.neural.methods import kv
from cmt_sdk.neural.quantization import QuantizedRows


def unchanged(rows: Tensor, _group: int = 0) -> QuantizedRows:
    """Rows as they are, in half precision."""
    return QuantizedRows(rows.half(), torch.zeros(len(rows), 1, dtype=torch.float16))


if __name__ == "__main__":
    import sys

    kv.quantize = unchanged
    kv.dequantize = lambda packed: packed.codes.float()
    patched = ["--set", "codec=4bit", "--set", "runtime=torch"]  # what was replaced above
    main(["eval", *sys.argv[1:], *patched], prog_name="cmt")

"""A program: turn a .gguf file into a folder of bf16 safetensors, a configuration and a tokenizer.

    python -P convert.py FILE.gguf FOLDER

`download` runs it in a process of its own, as a file, so that it needs nothing of this package: it
takes memory and ten seconds or more, may be killed at any time, and the output of libraries stays
hidden. Prints the versions as JSON; ends with "UNSUPPORTED: " and the reason where transformers
cannot read the file.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any


def convert(file: Path, folder: Path) -> dict[str, str]:
    """Write the model of a .gguf file to `folder`; return the versions of the libraries used."""
    import gguf

    # transformers parses the header three times and maps the names once per tensor: a cache halves
    # the time
    gguf.GGUFReader = functools.lru_cache(gguf.GGUFReader)
    gguf.get_tensor_name_map = functools.lru_cache(gguf.get_tensor_name_map)
    # no .gguf file fails here, before the slow imports
    reader = gguf.GGUFReader(str(file))
    end = reader.get_field("tokenizer.ggml.eos_token_id")
    import torch
    import transformers

    source = {
        "pretrained_model_name_or_path": str(file.parent),
        "gguf_file": file.name,
        "local_files_only": True,
    }
    # releases before GgufConfig always unpack
    unpack = getattr(transformers, "GgufConfig", None)
    extra = {"quantization_config": unpack(dequantize=True)} if unpack else {}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            **source, **extra, dtype=torch.bfloat16
        )
    except (ValueError, LookupError, AttributeError, TypeError, NotImplementedError) as error:
        kinds = {
            key: _text(reader, key) for key in ("general.architecture", "tokenizer.ggml.model")
        }
        sys.exit(
            f"UNSUPPORTED: transformers {transformers.__version__} does not read a file of"
            f" architecture {kinds['general.architecture']} with tokenizer"
            f" {kinds['tokenizer.ggml.model']} ({type(error).__name__}: {error!s:.200})"
        )
    if end is not None:  # transformers 5.17 takes another token
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(int(end.contents()))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"transformers": transformers.__version__, "torch": str(torch.__version__)}


def _text(reader: Any, key: str) -> str:
    """The text of a field, quoted; "?" where there is none."""
    field = reader.get_field(key)
    return repr(str(field.contents())) if field else "?"


if __name__ == "__main__":
    versions = convert(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write(json.dumps(versions))

"""Reading on a CPU with onnxruntime: a model's graph, its caches, and the reader over them."""

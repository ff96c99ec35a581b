"""One folder on disk: documents, passages, memories and embeddings. Knows no torch and no model."""

"""One folder on disk: documents, passages, memories and key vectors. Knows no torch and no model."""

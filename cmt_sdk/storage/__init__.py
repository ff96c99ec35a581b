"""One folder on disk: documents, passages, compressed passages and embeddings. Knows no torch and
no model.
"""

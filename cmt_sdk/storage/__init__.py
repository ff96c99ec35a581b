"""Documents, passages, compressed passages and embeddings: in one folder on disk, or in a Postgres
database (postgres/). Knows no torch and no model.
"""

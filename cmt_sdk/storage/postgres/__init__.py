"""The same store in a Postgres database with pgvector: many processes and machines share it. Knows
no torch and no model.
"""

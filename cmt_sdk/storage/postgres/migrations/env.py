"""Alembic's environment: migrations run over the connection that the package gives, or are printed
as SQL by `alembic upgrade head --sql`.
"""

from alembic import context

connection = context.config.attributes.get("connection")
context.configure(
    connection=connection,
    dialect_name=None if connection is not None else "postgresql",
    version_table_schema="cmt",
)
if connection is not None:
    connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS cmt")
with context.begin_transaction():
    context.run_migrations()

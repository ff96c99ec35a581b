"""Compressed passages as objects outside the database.

`objects` counts for each one the rows that name it. It has no row-level security: the object of two
equal passages is one, also of two scopes, and its name is a hash.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# the mark and the length of a reference: cmt_sdk/storage/references.py
REFERENCE = """octet_length({row}.data) = 44
    AND substring({row}.data FROM 1 FOR 4) = '\\x434d544f'"""
NAME = "encode(substring({row}.data FROM 13), 'hex')"
DROPPED = f"""UPDATE cmt.objects SET uses = uses - 1, reserved_at = NULL
    WHERE name = {NAME.format(row="old")};"""
NAMED = f"""INSERT INTO cmt.objects (name, uses, token) VALUES ({NAME.format(row="new")}, 1, '')
    ON CONFLICT (name) DO UPDATE SET uses = objects.uses + 1, reserved_at = NULL;"""

STATEMENTS = (
    """CREATE TABLE cmt.objects (
        name text COLLATE "C" PRIMARY KEY, uses bigint NOT NULL, token text NOT NULL,
        reserved_at double precision, taken_until double precision)""",
    "CREATE INDEX unused_objects ON cmt.objects (name) WHERE uses = 0",
    f"""CREATE FUNCTION cmt.object_named() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN {NAMED} RETURN NULL; END $$""",
    f"""CREATE FUNCTION cmt.object_dropped() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN {DROPPED} RETURN NULL; END $$""",
    f"""CREATE TRIGGER object_1_dropped AFTER DELETE ON cmt.memories FOR EACH ROW
        WHEN ({REFERENCE.format(row="old")}) EXECUTE FUNCTION cmt.object_dropped()""",
    f"""CREATE TRIGGER object_1_replaced AFTER UPDATE OF data ON cmt.memories FOR EACH ROW
        WHEN ({REFERENCE.format(row="old")}) EXECUTE FUNCTION cmt.object_dropped()""",
    f"""CREATE TRIGGER object_2_named AFTER INSERT OR UPDATE OF data ON cmt.memories FOR EACH ROW
        WHEN ({REFERENCE.format(row="new")}) EXECUTE FUNCTION cmt.object_named()""",
)


def upgrade() -> None:
    """Make the table and its triggers."""
    for statement in STATEMENTS:
        op.execute(statement)

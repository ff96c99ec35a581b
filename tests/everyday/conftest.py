"""What the tests of everyday documents share: the command line over real memories with a fake
language model.
"""

from tests.unit.conftest import Command, cmt

__all__ = ["Command", "cmt"]

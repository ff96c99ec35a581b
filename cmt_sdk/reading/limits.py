"""How much of a prompt is read, and where: the numbers that every engine shares."""

from __future__ import annotations

# Tokens of a memory from an archive or another database: a forged one could claim more and its bits
# would expand to gigabytes.
MAX_PASSAGE_TOKENS = 2**15
# The bias of all memories of a prompt but the last, which the search ranked best. Passages that are
# read apart from each other compete for the question's attention as equals; the bias expresses the
# ranking. On 40 questions over five passages each, F1 rose from 37 to 49.
NON_BEST_BIAS = -1.0
# Tokens of a question, from its end, that are scored: each memory reads them again, and a page of
# text would take minutes.
MAX_QUESTION_TOKENS = 96
MAX_EMBEDDED_TOKENS = 512  # of a text; later ones add nothing to an embedding
MAX_HEARD_TOKENS = 128  # of a message whose states are taken
# Shares of the layers after which a message's states are taken; later layers do not run.
HEARD_SHARES = (1 / 2, 2 / 3)


def heard_layers(layers: int) -> list[int]:
    """The numbers of layers after which a message's states are taken."""
    return [max(1, round(layers * share)) for share in HEARD_SHARES]

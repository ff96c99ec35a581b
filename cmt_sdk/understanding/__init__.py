"""Understanding: what a message wants of a memory, decided by a linear probe on the frozen LLM.

No list of words decides. `utterances.tsv` holds labelled messages in nine languages; `probe` fits a
linear classifier to them, on states of whatever model is open and on hashed characters; `intent`
applies it sentence by sentence. Pure numpy: knows no model, no store and no reply.
"""

from cmt_sdk.understanding.intent import Judge, understand
from cmt_sdk.understanding.probe import IntentProbe, fit
from cmt_sdk.understanding.utterances import Utterance, common_words, read_utterances

__all__ = [
    "IntentProbe",
    "Judge",
    "Utterance",
    "common_words",
    "fit",
    "read_utterances",
    "understand",
]

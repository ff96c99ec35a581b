"""One file for a complete memory: a zip archive of JSON lines and safetensors that other programs
can read. It never holds pickles.

    manifest.json                 format number, counts, and the fingerprints of what compressed
    documents.jsonl               one line per version of a document; the versions of a document
                                  follow each other, oldest first
    memories/00000.jsonl          one line per compressed passage: its document, its passage's hash,
    its
                                  fingerprint, its arrays and its seal
    memories/00000.safetensors    those arrays ("0.memory.NAME") and the embeddings ("0.key"), by
                                  line number

Members are stored, not deflated: compressed passages do not shrink, and a file that cannot expand
cannot be a zip bomb. Writing and reading hold one document's versions and one shard of compressed
passages at a time. Knows the store's port, no model.
"""

from cmt_sdk.archive.comparing import Compared, compare, compare_with_store
from cmt_sdk.archive.contents import opened
from cmt_sdk.archive.files import disk_errors, new_file
from cmt_sdk.archive.histories import CHOICES, Choice
from cmt_sdk.archive.reading import ArchiveImport, Matches, merge, read
from cmt_sdk.archive.records import StoreRecords
from cmt_sdk.archive.seals import Seal, seal_here
from cmt_sdk.archive.writing import write

__all__ = [
    "CHOICES",
    "ArchiveImport",
    "Choice",
    "Compared",
    "Matches",
    "Seal",
    "StoreRecords",
    "compare",
    "compare_with_store",
    "disk_errors",
    "merge",
    "new_file",
    "opened",
    "read",
    "seal_here",
    "write",
]

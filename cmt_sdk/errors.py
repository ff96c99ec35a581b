"""The family of errors, grouped by what the caller can do about them. Knows nothing else of the
package.

CMTError
├── InvalidInput        an argument of the call is wrong: change it
│   ├── InvalidDocument     binary, too large, not text
│   │   └── EmptyDocument       there is no text in it
│   ├── InvalidFilter       a filter key or value that cannot be asked for
│   └── InvalidSetting      a setting outside its range, an unknown name
├── NotFound            the named thing is not there
│   ├── DocumentNotFound
│   ├── MemoryNotFound      no memory in that folder yet
│   └── ModelNotFound       the base model or adapter is not on this machine
├── AlreadyExists       an id or a file that is taken
├── MissingExtra        an optional dependency is not installed, or too old
├── StorageError        the disk or the database refused: nothing stored earlier is lost
│   ├── StorageFull
│   ├── StorageDamaged
│   ├── StorageLocked
│   ├── StorageNewer        written by a newer release
│   ├── StorageDenied       no permission
│   └── StorageEncrypted    its key is not here, or is another
└── ModelError          the language model cannot do this
    ├── ModelMismatch       the compressed passages were made by another model
    ├── ModelUnsupported    an architecture that this compressor cannot serve
    ├── ModelDownload       fetching or checking the weights failed
    └── GeneratorError      the generator cannot be reached, refuses, or gives no answer
"""

from __future__ import annotations

from collections import abc


class CMTError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidInput(CMTError, ValueError):
    """An argument of the call is wrong: change it."""


class InvalidDocument(InvalidInput):
    """The document is empty, binary, too large, or not valid text."""


class EmptyDocument(InvalidDocument):
    """There is no text in the document."""


class InvalidFilter(InvalidInput):
    """A filter key, operator or value that cannot be asked for."""


class InvalidSetting(InvalidInput):
    """A setting outside its range, or a name that no setting has."""


class NotFound(CMTError, LookupError):
    """The named thing is not there."""


class DocumentNotFound(NotFound):
    """No document has this id.

    Attributes:
        id: The id that was given.
    """

    def __init__(self, message: str, *, id: str = "") -> None:  # noqa: A002 - the word users know
        super().__init__(message)
        self.id = id

    @classmethod
    def of(cls, id: str) -> DocumentNotFound:  # noqa: A002
        """The error for an id, with its remedy."""
        return cls(f"no document has the id {id!r}; `list` shows those there are", id=id)


class MemoryNotFound(NotFound):
    """There is no memory in this folder yet."""


class ModelNotFound(NotFound):
    """The base model or an adapter is not on this machine."""


class AlreadyExists(CMTError):
    """An id or a file name that is already taken."""


class MissingExtra(CMTError, ImportError):
    """An optional dependency is missing, or has a version that cannot be used; see `extras`.

    The message is its install line, or the `problem` in place of it.
    """

    def __init__(self, feature: str, extra: str, problem: str = "") -> None:
        missing = f"needs an optional dependency: pip install 'cmt-sdk[{extra}]'"
        super().__init__(f"{feature} {problem or missing}")


class StorageError(CMTError):
    """The disk or the database refused; nothing stored earlier is lost."""


class StorageFull(StorageError):
    """No space left on the device."""


class StorageDamaged(StorageError):
    """A file of the memory cannot be read as what it should be."""


class StorageLocked(StorageError):
    """Another process holds the database for longer than the wait allows."""


class StorageNewer(StorageError):
    """The memory was written by a newer release of this package."""


class StorageDenied(StorageError):
    """The operating system denies access to the folder or a file in it."""


class StorageEncrypted(StorageError):
    """The memory is encrypted, and its key is not here, or is another."""


class ModelError(CMTError):
    """The language model cannot do what was asked."""


class ModelMismatch(ModelError):
    """Another model than the one that is open made the compressed passages or the adapter.

    Attributes:
        differences: The fields of the fingerprints that differ, each as "name: stored != open".
    """

    def __init__(self, message: str, *, differences: abc.Sequence[str] = ()) -> None:
        super().__init__(message)
        self.differences = tuple(differences)


class ModelUnsupported(ModelError):
    """An architecture that this compressor cannot serve."""


class ModelDownload(ModelError):
    """Fetching, checking or converting the weights failed."""


class GeneratorError(ModelError):
    """The generator cannot be reached, refuses, is silent, or gives no answer."""

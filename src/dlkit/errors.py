"""Every error that dlkit raises on purpose.

::

    DlkitError
    ├── ArgumentError (ValueError)         an invalid argument
    ├── MissingExtraError (ImportError)    an optional dependency is not installed
    ├── DataError (ValueError)             the data is wrong; names file, row or index
    │   ├── DataNotFoundError (FileNotFoundError)
    │   ├── EmptyBatchError                no sample of a batch can be read
    │   └── TooManyErrorsError             more bad samples than `max_errors` allows
    ├── DownloadError (OSError)            no mirror gave the file
    │   ├── OfflineError                   DLKIT_OFFLINE=1 forbids the network
    │   └── IntegrityError                 size or hash is not the promised one
    ├── ArchiveError (ValueError)          an archive that is broken
    │   └── UnsafeArchiveError             an archive that would write outside its folder, or too much
    ├── TrainingError (RuntimeError)       model, loss and data do not fit each other
    ├── CheckpointError (RuntimeError)
    │   ├── DamagedCheckpointError         truncated, changed or unsafe file
    │   ├── ResumeError                    the saved run and this one do not fit
    │   └── RunLockedError                 another process trains in this folder
    └── ModelFileError (ValueError)        a model file or weights that cannot be used

Each is also the standard error a caller would expect, so `except FileNotFoundError` works as well as
`except DlkitError`. Messages say what was given, what was expected and what to do next.
"""

from __future__ import annotations

from dlkit._showing import safe

__all__ = [
    "ArchiveError",
    "ArgumentError",
    "CheckpointError",
    "DamagedCheckpointError",
    "DataError",
    "DataNotFoundError",
    "DlkitError",
    "DownloadError",
    "EmptyBatchError",
    "IntegrityError",
    "MissingExtraError",
    "ModelFileError",
    "OfflineError",
    "ResumeError",
    "RunLockedError",
    "TooManyErrorsError",
    "TrainingError",
    "UnsafeArchiveError",
]


class DlkitError(Exception):
    """The root of all errors that dlkit raises on purpose.

    Messages quote what came from elsewhere: names of files and classes, the words of servers. Shown as text they are
    safe for a terminal and a log; `args` has them as they are.

    >>> print(DlkitError("no class '\x1b[31mred'"))
    no class '\\x1b[31mred'
    """

    def __str__(self) -> str:
        return safe(super().__str__())


class ArgumentError(DlkitError, ValueError):
    """An argument's value is invalid: the message names it, what it was and what it may be."""


class MissingExtraError(DlkitError, ImportError):
    """An optional dependency is not installed: the message has the `pip install` line that helps."""


class DataError(DlkitError, ValueError):
    """The data is not what it should be: the message names the file, row, column or index."""


class DataNotFoundError(DataError, FileNotFoundError):
    """A file or folder of data is missing: the message says where it was looked for and how to get it."""


class EmptyBatchError(DataError):
    """No sample of a batch can be read: a dataset that leaves bad samples out raises it, and loaders the batch."""


class TooManyErrorsError(DataError):
    """More samples were unreadable than `max_errors` allows; the message lists the first of them."""


class DownloadError(DlkitError, OSError):
    """No mirror gave the file: the message lists each one tried and why it failed."""


class OfflineError(DownloadError):
    """The file is not there and `DLKIT_OFFLINE=1` forbids fetching it."""


class IntegrityError(DownloadError):
    """A file's size or hash is not the promised one; it was not put under its name."""


class ArchiveError(DlkitError, ValueError):
    """An archive cannot be read; nothing of it was kept."""


class UnsafeArchiveError(ArchiveError):
    """An archive would write outside its folder, make devices or exceed a limit; nothing of it was kept."""


class TrainingError(DlkitError, RuntimeError):
    """Model, loss, optimizer, metrics and data do not fit each other; the message has the shapes."""


class CheckpointError(DlkitError, RuntimeError):
    """A checkpoint cannot be written, found or used."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint file is truncated, changed, or holds more than plain data; it was not used."""


class ResumeError(CheckpointError):
    """The run in the folder and the run that was started do not fit; the message names each difference."""


class RunLockedError(CheckpointError):
    """Another process trains in this folder at this moment."""


class ModelFileError(DlkitError, ValueError):
    """A model file or a file of weights is damaged, hostile, or does not fit the model."""

"""What dlkit writes to disk: nothing half written is ever found, and all of it can be listed and cleared.

========== ===================================================================================
`files`    files that are whole or not there, locks between processes, the folder `DLKIT_HOME`
`identity` what tells one tensor, file or transform from another
`arrays`   long arrays, in memory or in a mapped file
`appended` arrays that are added one by one, good whenever a writer is killed
`strings`  many strings as one block of bytes
`caches`   what is kept: list, size, clear
========== ===================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlkit._doors import door

if TYPE_CHECKING:
    from dlkit.storage.caches import Cleared as Cleared
    from dlkit.storage.caches import Entry as Entry
    from dlkit.storage.caches import clear as clear
    from dlkit.storage.caches import entries as entries
    from dlkit.storage.files import home as home

__all__, __getattr__, __dir__ = door(
    __name__,
    {
        "Cleared": "dlkit.storage.caches",
        "Entry": "dlkit.storage.caches",
        "clear": "dlkit.storage.caches",
        "entries": "dlkit.storage.caches",
        "home": "dlkit.storage.files",
    },
)

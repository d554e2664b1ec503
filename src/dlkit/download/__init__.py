"""Get files over the network or from disk, and unpack them: whole and checked, or not at all.

`fetching` asks one mirror after another, `http` moves the bytes of one attempt, `urls` says what an address is;
`archives` unpacks safely, `members` reads what an archive holds, `disk` turns a full or failing disk into words.
"""

from dlkit.download.archives import DownloadLimits, extract
from dlkit.download.fetching import Patience, fetch

__all__ = ["DownloadLimits", "Patience", "extract", "fetch"]

"""Get files over the network or from disk, and unpack them: whole and checked, or not at all.

`fetching` asks one mirror after another, `http` moves the bytes of one attempt, `urls` says what an address is;
`archives` unpacks safely, `members` reads what an archive holds, `disk` turns a full or failing disk
into words; `limits` says how long a download may take, and how large it may be.
"""

from dlkit.download.archives import extract
from dlkit.download.fetching import fetch
from dlkit.download.limits import DownloadLimits, Patience

__all__ = ["DownloadLimits", "Patience", "extract", "fetch"]

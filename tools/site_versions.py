"""Write the list of versions that the site's menu shows, and the start page that leads to the newest release.

    python tools/site_versions.py FOLDER /dlkit/

FOLDER holds one built site per version: a folder named after each release (0.1.0), and `latest`, which is main. The
second argument is the path at which FOLDER is published. `docs/conf.py` reads the same path from DLKIT_DOCS_AT.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

START = '<!doctype html><meta charset="utf-8"><title>dlkit</title><meta http-equiv="refresh" content="0; url={0}/">\n'


def releases(folder: Path) -> list[str]:
    """The names of the releases in the folder, the newest first: 0.10.0 before 0.9.0."""
    names = [path.name for path in folder.iterdir() if re.fullmatch(r"\d+(\.\d+)+", path.name)]
    return sorted(names, key=lambda name: [int(part) for part in name.split(".")], reverse=True)


def entries(folder: Path, published_at: str) -> list[dict[str, str | bool]]:
    """What the theme's switcher.json lists; pages of other versions name the preferred one in a banner."""
    names = [*(["latest"] if (folder / "latest").is_dir() else []), *releases(folder)]
    preferred = next(iter(releases(folder)), None)
    return [
        {
            "version": name,
            "name": f"{name} (newest release)" if name == preferred else name,
            "url": f"{published_at.rstrip('/')}/{name}/",
            "preferred": name == preferred,
        }
        for name in names
    ]


def write(folder: Path, published_at: str) -> None:
    """Write switcher.json and index.html into the folder."""
    listed = entries(folder, published_at)
    (folder / "switcher.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    (folder / "index.html").write_text(START.format(next(iter(releases(folder)), "latest")), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])

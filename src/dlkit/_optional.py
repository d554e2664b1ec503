"""Import an optional dependency where it is used, with an error that says how to install it.

How installing is described is decided here and in docs/how-to/install.md, and nowhere else.
"""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from importlib import metadata
from typing import Any

from dlkit.errors import MissingExtraError

_DISTRIBUTION = "dlkit-torch"


def require(module: str, *, extra: str) -> Any:
    """Import `module` and return it, or say how to install the extra of dlkit that brings it.

    >>> require("json", extra="plots").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the package is there, but something inside it is broken: do not hide that
        raise MissingExtraError(
            f"this needs the package {module.partition('.')[0]!r}, which is not installed; {install_line(extra)}"
        ) from error


def install_line(extra: str) -> str:
    """The command that installs what an extra names.

    It names the packages themselves, as this installation's metadata list them: until dlkit is on a package index,
    nobody knows whose package `pip install` would find under its name.

    >>> install_line("plots")
    "pip install 'matplotlib>=3.8'  (dlkit's extra 'plots')"
    """
    try:
        listed = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # run from a source tree without an installation
        listed = []
    packages = [
        each.partition(";")[0].strip()
        for each in listed
        if re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", each)
        and not (sys.platform == "win32" and re.search(r"sys_platform != ['\"]win32['\"]", each))
    ]
    if not packages:
        return f"pip install '.[{extra}]' in a checkout of dlkit"
    return f"pip install {shlex.join(packages)}  (dlkit's extra {extra!r})"

"""Check the licences of everything that comes with dlkit and its extras; one that is not known is an error.

What counts is what the installed packages say of themselves: the expression of PEP 639, else the classifiers, else the
old field. `make check` runs it; packages that only this project's development needs are not looked at.
"""

from __future__ import annotations

import importlib.metadata as metadata
import re
import sys
from collections.abc import Iterator

from packaging.requirements import Requirement

ROOT = "dlkit-torch"
DEVELOPMENT = {"bench", "dev", "docs"}
#: Parts of the names of licences under which a user may do with a model and a program what Apache-2.0 allows.
COMPATIBLE = (
    r"\b(MIT|BSD|Apache|ISC|PSF|Python Software Foundation|HPND|MPL|Mozilla|Unlicense|0BSD|Zlib|ZPL|CNRI-Python)\b"
)
#: Seen by a person. NVIDIA's come with PyTorch, may be handed on under their own terms, and are only there with a build
#: for GPUs. The code of pillow-heif is BSD-3-Clause, but its wheels carry libx265, which is GPL-2.0 (older ones say so,
#: newer ones do not): nobody gets it unless they ask for the extra `heic` or `all`, and docs/how-to/install.md says so.
SEEN = r"^(nvidia-[\w-]+|cuda-[\w-]+|pillow-heif)$"


def licence(name: str) -> str:
    """What a package says of its licence."""
    about = metadata.metadata(name)
    if expression := about.get("License-Expression"):
        return expression
    named = [each.rpartition(":: ")[2] for each in about.get_all("Classifier") or () if each.startswith("License ::")]
    return "; ".join(named) or (about.get("License") or "").strip().partition("\n")[0] or "not said"


def needed() -> Iterator[str]:
    """The distributions that dlkit and its extras bring, as installed here; each once."""
    extras = set(metadata.metadata(ROOT).get_all("Provides-Extra") or ()) - DEVELOPMENT
    seen, waiting = set[tuple[str, str]](), [(ROOT, extra) for extra in ("", *sorted(extras))]
    while waiting:
        name, extra = each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # an extra that is not installed here
            continue
        if name != ROOT and all(other != name for other, _ in seen - {each}):
            yield name
        for text in requires:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                plain = re.sub(r"[-_.]+", "-", requirement.name).lower()
                waiting += [(plain, more) for more in ("", *requirement.extras)]


def main() -> int:
    """Print what is not known to be compatible."""
    found = {name: licence(name) for name in needed()}
    wrong = {name: said for name, said in found.items() if not re.search(COMPATIBLE, said) and not re.match(SEEN, name)}
    for name, said in sorted(wrong.items()):
        print(f"{name}: {said!r} is not a licence that tools/licences.py knows to be compatible")
    print(f"licences of {len(found)} packages looked at, {len(wrong)} in doubt")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())

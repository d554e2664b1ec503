"""What a model's inputs mean, as plain data: a table's schema, a text spec, the preprocessing of images.

Each kind is a `Spec`, with `kind`, `to_json`, `from_json` and `example`; that is all that the model file and the
registry of models know of it. Names load when they are first used.

=========== ==========================================================================================
`documents` from objects to JSON, and checked back from JSON of anybody
`kinds`     `Spec`, and which kinds there are
`table`     `Schema`, of `columns`
`text`      `TextSpec`
`builtin`   makes dlkit's own kinds known
=========== ==========================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlkit._doors import door

if TYPE_CHECKING:
    from dlkit.specs.documents import Document as Document
    from dlkit.specs.kinds import Spec as Spec
    from dlkit.specs.kinds import values as values
    from dlkit.specs.table import Schema as Schema
    from dlkit.specs.text import TextSpec as TextSpec

__all__, __getattr__, __dir__ = door(
    __name__,
    {
        "Document": "dlkit.specs.documents",
        "Schema": "dlkit.specs.table",
        "Spec": "dlkit.specs.kinds",
        "TextSpec": "dlkit.specs.text",
        "values": "dlkit.specs.kinds",
    },
)

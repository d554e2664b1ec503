"""What a model's inputs mean, as plain data: a table's spec, a text spec, the preprocessing of images.

Each kind is a `Spec`, with `kind`, `to_json`, `from_json` and `example`; that is all that the model file and the
registry of models know of it. Names load when they are first used.

========= ==========================================================================================
`table`   `TableSpec`, of `columns`
`text`    `TextSpec`
`series`  `WindowSpec`
`builtin` makes dlkit's own kinds known, `transforms.Preprocessing` among them
========= ==========================================================================================

`Spec` itself is on the ground floor (`dlkit._kinds`, of `dlkit._documents`), for transforms and vocabularies are
documents, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlkit._doors import door

if TYPE_CHECKING:
    from dlkit._documents import Document as Document
    from dlkit._kinds import Spec as Spec
    from dlkit._kinds import values as values
    from dlkit.specs.series import WindowSpec as WindowSpec
    from dlkit.specs.table import TableSpec as TableSpec
    from dlkit.specs.text import TextSpec as TextSpec

__all__, __getattr__, __dir__ = door(
    __name__,
    {
        "Document": "dlkit._documents",
        "TableSpec": "dlkit.specs.table",
        "Spec": "dlkit._kinds",
        "TextSpec": "dlkit.specs.text",
        "WindowSpec": "dlkit.specs.series",
        "values": "dlkit._kinds",
    },
)

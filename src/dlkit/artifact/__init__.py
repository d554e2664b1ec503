"""The model file: one safetensors file with everything that prediction needs. Names load when first used.

=========== ==========================================================================================
`header`    the file's head, checked before anything is built
`inputs`    what a model takes and what its outputs mean
`running`   a model, called with whatever its inputs come as
`outlining` what a file says of a model before it is trained
`weights`   its tensors, shared ones once
`opening`   from the file to the model
`exporting` for other programs
`saving`    `save`
=========== ==========================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlkit._doors import door

if TYPE_CHECKING:
    from dlkit.artifact.header import read_header as read_header
    from dlkit.artifact.saving import save as save

__all__, __getattr__, __dir__ = door(
    __name__,
    {
        "read_header": "dlkit.artifact.header",
        "save": "dlkit.artifact.saving",
    },
)

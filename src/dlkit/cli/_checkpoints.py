"""The command `checkpoint`: one file out of what several processes have saved in shares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlkit._language import Message
from dlkit.cli._options import DebugFlag, JsonFlag
from dlkit.cli._talking import guarded, show

__all__ = ["checkpoint"]


@guarded
def checkpoint(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or one of its checkpoints.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The checkpoint to write, whole.")] = None,
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the weights as safetensors.")] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a model file, for dlkit predict and dlkit serve.")
    ] = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Put a checkpoint into one file, also one that several processes have saved in shares; or make a model file of it.

    The newest good one of a folder is taken. fit(resume=FILE) resumes from a whole checkpoint.

    \b
    Examples:
      dlkit checkpoint runs/large --out whole.pt
      dlkit checkpoint runs/large --out whole.pt --weights weights.safetensors
      dlkit checkpoint runs/large --model model.safetensors
    """
    from dlkit.runs.consolidating import consolidate
    from dlkit.storage.files import check_writable

    for path in (out, weights, model):
        if path is not None:
            check_writable(path)
    read = consolidate(source, out, weights=weights, model=model)
    written = [str(path) for path in (out, weights, model) if path is not None]
    show(
        Message("{checkpoint} is now {files}", checkpoint=read, files=", ".join(written)),
        {"checkpoint": str(read), "written": written},
        as_json=json,
    )

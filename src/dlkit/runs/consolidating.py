"""One checkpoint in one file, out of what several processes have saved in shares."""

from __future__ import annotations

import os
from pathlib import Path

from dlkit.errors import ArgumentError, CheckpointError
from dlkit.runs.checkpointfile import load_checkpoint, save_checkpoint
from dlkit.runs.modelfile import weights_in, write_saved_model
from dlkit.runs.store import CheckpointStore
from dlkit.storage.files import atomic_write

__all__ = ["consolidate"]


def consolidate(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a checkpoint as one file that needs no other, for `fit(resume=...)` and `load_checkpoint` anywhere.

    Args:
        source: A checkpoint file, or a run's folder, of which the newest good one is taken.
        out: The checkpoint to write.
        weights: Write the model's weights, averaged ones where there are such, into this `.safetensors` file.
        model: Write a file for `dlkit.load`, with the same weights.

    Returns:
        The file that was read.

    Raises:
        ArgumentError: nothing is to be written.
        CheckpointError: there is no checkpoint, or none that can be used; or it does not hold how its model is built.
        ModelFileError: the model cannot be built here, as its class is known to a script only.

    >>> import tempfile, torch; folder = Path(tempfile.mkdtemp())
    >>> _ = CheckpointStore(folder).save({"model": {"weight": torch.ones(2)}}, step=1, epoch=0)
    >>> consolidate(folder, folder / "whole.pt").name, load_checkpoint(folder / "whole.pt")["model"]["weight"]
    ('checkpoint-000001-step-00000001.pt', tensor([1., 1.]))
    """
    if out is None and weights is None and model is None:
        raise ArgumentError("say what to write: a whole checkpoint, the weights, or a model file")
    path = Path(source)
    if path.is_dir():
        found = next(((path / entry.file, state) for entry, state in CheckpointStore(path).loadable()), None)
        if found is None:
            raise CheckpointError(f"there is no checkpoint in {path} that can be used")
        path, state = found
    else:
        state = load_checkpoint(path)
    if out is not None:
        save_checkpoint(state, out)
    if weights is not None:
        from safetensors.torch import save

        with atomic_write(weights) as file:
            file.write(save({name: value.clone().contiguous() for name, value in weights_in(state).items()}))
    if model is not None:
        write_saved_model(state, model, path)
    return path

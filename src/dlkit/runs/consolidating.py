"""One checkpoint in one file, out of what several processes have saved in shares."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from dlkit.errors import CheckpointError
from dlkit.runs.checkpointfile import load_checkpoint, save_checkpoint
from dlkit.runs.store import CheckpointStore
from dlkit.storage.files import atomic_write

__all__ = ["consolidate"]


def consolidate(
    source: str | os.PathLike[str], out: str | os.PathLike[str], *, weights: str | os.PathLike[str] | None = None
) -> Path:
    """Write a checkpoint as one file that needs no other, for `fit(resume=...)` and `load_checkpoint` anywhere.

    Args:
        source: A checkpoint file, or a run's folder, of which the newest good one is taken.
        out: The file to write.
        weights: Also write the model's weights, averaged ones where there are such, into this `.safetensors` file.

    Returns:
        The file that was read.

    Raises:
        CheckpointError: there is no checkpoint, or none that can be used.

    >>> import tempfile, torch; folder = Path(tempfile.mkdtemp())
    >>> _ = CheckpointStore(folder).save({"model": {"weight": torch.ones(2)}}, step=1, epoch=0)
    >>> consolidate(folder, folder / "whole.pt").name, load_checkpoint(folder / "whole.pt")["model"]["weight"]
    ('checkpoint-000001-step-00000001.pt', tensor([1., 1.]))
    """
    path = Path(source)
    if path.is_dir():
        found = next(((path / entry.file, state) for entry, state in CheckpointStore(path).loadable()), None)
        if found is None:
            raise CheckpointError(f"there is no checkpoint in {path} that can be used")
        path, state = found
    else:
        state = load_checkpoint(path)
    save_checkpoint(state, out)
    if weights is not None:
        _write_weights(state.get("eval_model") or state.get("model"), Path(weights))
    return path


def _write_weights(held: object, path: Path) -> None:
    from safetensors.torch import save

    if not isinstance(held, dict):
        raise CheckpointError("the checkpoint holds no model, so there are no weights to write")
    tensors = {name: value.clone().contiguous() for name, value in held.items() if isinstance(value, Tensor)}
    with atomic_write(path) as file:
        file.write(save(tensors))

"""The model file of a run: what the data and the history know of the model goes into it by itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dlkit import _bounds
from dlkit._language import Message
from dlkit.declared import classes_in, preparation_in, spec_in
from dlkit.errors import ArgumentError, CheckpointError
from dlkit.runs.state import Run

__all__ = ["FIELD", "check_model_file", "outline_of", "weights_in", "write_model_file", "write_saved_model"]

#: Of a checkpoint's state: what `outline_of` gave.
FIELD = "model file"


def write_model_file(run: Run, path: str | os.PathLike[str], **options: Any) -> Path:
    """Write the run's model with `dlkit.save`.

    Args:
        run: The run, between two steps.
        path: The file.
        **options: See `dlkit.save`; what is not given is taken from the data, then from the model; metrics from the
            history's row of the weights that are in the model, if there is one: a run may have stopped after it.
    """
    step = run.step if run.weights_from is None else run.weights_from
    from dlkit.artifact.saving import save  # brings backbones and downloads, which training does without

    known = _known(run, options)
    if known["outputs"] is None and known["classes"]:
        run.tell(
            Message(
                "{file}: a custom loss does not say what the outputs are; they are taken for logits. "
                "If they are something else, name the loss of torch that reads them so, "
                "metrics=dlkit.metrics.Metrics([...], loss=torch.nn.BCELoss()), or trainer.save(path, "
                'outputs="probabilities"); outputs="logits" says that they are',
                file=Path(path).name,
            )
        )
    return save(run.model, path, **{"metrics": _measured(run.history.rows, step), **known})


def _measured(history: Sequence[Mapping[str, Any]], step: int) -> dict[str, float]:
    """The numbers of the row that belongs to a step."""
    rows = [row for row in history if row["step"] == step]
    return {} if not rows else {k: v for k, v in rows[-1].items() if isinstance(v, int | float) and v == v}


def outline_of(run: Run) -> str:
    """What a checkpoint keeps, so that it can become a model file, as JSON; or why it cannot, under "missing".

    Args:
        run: At the start of a fit.
    """
    from dlkit.artifact.outlining import outline

    try:
        return json.dumps(outline(run.model, **_known(run, {})))
    except Exception as error:  # noqa: BLE001  (a dataset of the user's own may stumble in any way when it is asked)
        return json.dumps({"missing": str(error)})


def write_saved_model(state: Mapping[str, Any], path: str | os.PathLike[str], source: Path) -> Path:
    """Write the model file of a checkpoint: of the averaged weights, where there are such.

    Args:
        state: Of the checkpoint.
        path: The file to write.
        source: The checkpoint, for messages.

    Raises:
        CheckpointError: it does not hold how its model is built.
        ModelFileError: its model cannot be built in this process.
    """
    known, weights = _outline_in(state, source), weights_in(state)
    if "missing" in known:
        raise CheckpointError(
            f"{source} does not hold all that a model file needs: {known['missing']}. In the script that has trained "
            "it, trainer.fit(..., resume=FILE) and trainer.save(path, ...) write one; the weights alone, --weights FILE"
        )
    from dlkit.artifact.saving import save_state

    measured = _measured(state.get("history", ()), state.get("cursor", {}).get("step", -1))
    return save_state(known, weights, Path(path).expanduser(), metrics=measured)


def _outline_in(state: Mapping[str, Any], source: Path) -> dict[str, Any]:
    if FIELD not in state:
        return {"missing": "an older dlkit has written it"}
    try:
        known = _bounds.parse(str(state[FIELD]), "what it says of its model")
        return {**known}
    except (ArgumentError, TypeError) as error:
        raise CheckpointError(f"{source}: {error}") from error


def weights_in(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a checkpoint that the run was judged by: averaged ones where there are such.

    Args:
        state: Of the checkpoint.

    Raises:
        CheckpointError: it holds no model.
    """
    held = state.get("eval_model") or state.get("model")
    if not isinstance(held, dict):
        raise CheckpointError("the checkpoint holds no model, so there are no weights to write")
    return {name: value for name, value in held.items() if isinstance(value, Tensor)}


def check_model_file(run: Run, **options: Any) -> None:
    """Raise what `write_model_file` would raise for lack of knowledge, before hours of training.

    Args:
        run: The run.
        **options: See `write_model_file`.
    """
    from dlkit.artifact.saving import describe

    describe(run.model, **_known(run, options))


def _known(run: Run, options: dict[str, Any]) -> dict[str, Any]:
    """Classes and spec are those of the training data; images are prepared as in validation."""
    data = run.data
    if preparation_in(run.val_data) and (spec_in(data) is None or preparation_in(data)):
        data = run.val_data
    known: dict[str, Any] = {"classes": classes_in(run.data), "outputs": run.outputs}
    if options.get("preprocessing") is None and spec_in(data) is not None:
        known["preprocessing"] = data
    return {**known, **options}

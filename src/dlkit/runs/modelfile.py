"""The model file of a run: what the data and the history know of the model goes into it by itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dlkit.declared import classes_in, preparation_in, spec_in
from dlkit.runs.state import Run

__all__ = ["check_model_file", "write_model_file"]


def write_model_file(run: Run, path: str | os.PathLike[str], **options: Any) -> Path:
    """Write the run's model with `dlkit.save`.

    Args:
        run: The run, between two steps.
        path: The file.
        **options: See `dlkit.save`; what is not given is taken from the data, then from the model; metrics from the
            history's row of the weights that are in the model, if there is one: a run may have stopped after it.
    """
    step = run.step if run.weights_from is None else run.weights_from
    rows = [row for row in run.history.rows if row["step"] == step]
    measured = {} if not rows else {k: v for k, v in rows[-1].items() if isinstance(v, int | float) and v == v}
    from dlkit.artifact.saving import save  # brings backbones and downloads, which training does without

    known = _known(run, options)
    if known["outputs"] is None and known["classes"]:
        run.tell(
            f"{Path(path).name}: a loss of your own does not say what the outputs are; they are taken for logits. "
            "If they are something else, name the loss of torch that reads them so, "
            "metrics=dlkit.metrics.Metrics([...], loss=torch.nn.BCELoss()), or trainer.save(path, "
            'outputs="probabilities"); outputs="logits" says that they are'
        )
    return save(run.model, path, **{"metrics": measured, **known})


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

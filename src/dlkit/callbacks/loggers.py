"""Write each row of the history somewhere, without gaps or doubles when a run is killed and resumed.

After a resume the history in the checkpoint is the truth: rows that were logged after it was saved will be made again.
Files of dlkit's own are therefore written anew from the history at the start of a fit, and TensorBoard is told from
which step on to forget.
"""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from dlkit._files import atomic_write
from dlkit._optional import require
from dlkit.callbacks.base import Callback
from dlkit.runs.history import Row
from dlkit.runs.state import Run

__all__ = ["CSVLogger", "JSONLinesLogger", "MLflowLogger", "TensorBoardLogger", "WandbLogger"]


class CSVLogger(Callback):
    """One line per row in a CSV file, with a header; a value that comes up later becomes a new column.

    Args:
        path: The file; its folder is made.

    >>> logger = CSVLogger("runs/mine/history.csv")
    """

    changes_numbers = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._columns: list[str] = []

    def on_fit_start(self, run: Run) -> None:
        """Write what the history has.

        Args:
            run: The run.
        """
        self._columns = []
        if run.write_files:
            self._rewrite(run)

    def on_row(self, run: Run, row: Row) -> None:
        """Add a line.

        Args:
            run: The run.
            row: The new row.
        """
        if not run.write_files:
            return
        if any(name not in self._columns for name in row):
            self._rewrite(run)
            return
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(row)

    def _rewrite(self, run: Run) -> None:
        self._columns = list(run.history)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="")
        writer.writeheader()
        writer.writerows(run.history.rows)
        _write(self.path, text.getvalue())


class JSONLinesLogger(Callback):
    """One JSON object per row and line; NaN and infinities are written as strings, because JSON has none.

    Args:
        path: The file; its folder is made.

    >>> logger = JSONLinesLogger("runs/mine/history.jsonl")
    """

    changes_numbers = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def on_fit_start(self, run: Run) -> None:
        """Write what the history has.

        Args:
            run: The run.
        """
        if run.write_files:
            _write(self.path, "".join(_json_line(row) for row in run.history.rows))

    def on_row(self, run: Run, row: Row) -> None:
        """Add a line.

        Args:
            run: The run.
            row: The new row.
        """
        if run.write_files:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(_json_line(row))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(text.encode())


def _json_line(row: Row) -> str:
    safe = {name: value if abs(value) < float("inf") else str(value) for name, value in row.items()}
    return json.dumps(safe, allow_nan=False) + "\n"


class TensorBoardLogger(Callback):
    """Scalars for TensorBoard (extra `tensorboard`), one per value of a row.

    Args:
        log_dir: The folder that `tensorboard --logdir` is pointed at.

    >>> logger = TensorBoardLogger("runs/mine/tensorboard")
    """

    changes_numbers = False

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self.log_dir = Path(log_dir)
        self._writer: Any = None

    def on_fit_start(self, run: Run) -> None:
        """Open the file; steps after the resumed one are forgotten.

        Args:
            run: The run.
        """
        if run.write_files:
            require("tensorboard", extra="tensorboard")
            summary = require("torch.utils.tensorboard", extra="tensorboard")
            purge = run.step + 1 if run.step else None
            self._writer = summary.SummaryWriter(str(self.log_dir), purge_step=purge)

    def on_row(self, run: Run, row: Row) -> None:
        """Write the values.

        Args:
            run: The run.
            row: The new row.
        """
        if self._writer is not None:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name, value, row["step"])
            self._writer.flush()

    def on_fit_end(self, run: Run) -> None:
        """Close the file.

        Args:
            run: The run.
        """
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class MLflowLogger(Callback):
    """Metrics for MLflow (extra `mlflow`); a resumed run goes on in the same MLflow run.

    Args:
        experiment: The experiment's name.
        tracking_uri: Where MLflow keeps its data, for example `"sqlite:///mlflow.db"`; None for its own default.

    >>> logger = MLflowLogger("ants", tracking_uri="sqlite:///mlflow.db")
    """

    changes_numbers = False

    def __init__(self, experiment: str, *, tracking_uri: str | None = None) -> None:
        self.experiment, self.tracking_uri = experiment, tracking_uri
        self._client: Any = None
        self._run_id: str | None = None

    def on_fit_start(self, run: Run) -> None:
        """Open the experiment.

        Args:
            run: The run.
        """
        if not run.write_files:
            return
        mlflow = require("mlflow", extra="mlflow")
        self._client = mlflow.MlflowClient(tracking_uri=self.tracking_uri)
        if self._run_id is None:
            found = self._client.get_experiment_by_name(self.experiment)
            identity = found.experiment_id if found else self._client.create_experiment(self.experiment)
            self._run_id = self._client.create_run(identity).info.run_id

    def on_row(self, run: Run, row: Row) -> None:
        """Log the values, unless an earlier try at this step already did.

        Args:
            run: The run.
            row: The new row.
        """
        if self._client is None:
            return
        for name, value in row.items():
            if name == "step":
                continue
            logged = {metric.step for metric in self._client.get_metric_history(self._run_id, name)}
            if row["step"] not in logged:
                self._client.log_metric(self._run_id, name, value, step=row["step"])

    def on_fit_end(self, run: Run) -> None:
        """Close the run when nothing is left to do.

        Args:
            run: The run.
        """
        if self._client is not None and run.cursor.finished:
            self._client.set_terminated(self._run_id)

    def state_dict(self) -> dict[str, Any]:
        """The id of the MLflow run."""
        return {} if self._run_id is None else {"run_id": self._run_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in that run.

        Args:
            state: What `state_dict` returned.
        """
        self._run_id = state["run_id"]


class WandbLogger(Callback):
    """Metrics for Weights & Biases (extra `wandb`), offline unless you say otherwise.

    Args:
        project: The project's name.
        mode: "offline" (upload later with `wandb sync`), "online" or "disabled".
        dir: Where the offline files go; None for wandb's own default.

    >>> logger = WandbLogger("ants")
    """

    changes_numbers = False

    def __init__(self, project: str, *, mode: str = "offline", dir: str | os.PathLike[str] | None = None) -> None:  # noqa: A002
        self.project, self.mode, self.dir = project, mode, dir
        self._run: Any = None
        self._run_id: str | None = None

    def on_fit_start(self, run: Run) -> None:
        """Start the wandb run, or go on with it.

        Args:
            run: The run.
        """
        if not run.write_files:
            return
        wandb = require("wandb", extra="wandb")
        folder = None if self.dir is None else os.fspath(self.dir)
        self._run = wandb.init(project=self.project, mode=self.mode, dir=folder, id=self._run_id, resume="allow")
        self._run_id = self._run.id

    def on_row(self, run: Run, row: Row) -> None:
        """Log the values; wandb drops a step that it already has.

        Args:
            run: The run.
            row: The new row.
        """
        if self._run is not None:
            self._run.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])

    def on_fit_end(self, run: Run) -> None:
        """Finish the files.

        Args:
            run: The run.
        """
        if self._run is not None:
            self._run.finish(quiet=True)
            self._run = None

    def state_dict(self) -> dict[str, Any]:
        """The id of the wandb run."""
        return {} if self._run_id is None else {"run_id": self._run_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in that run.

        Args:
            state: What `state_dict` returned.
        """
        self._run_id = state["run_id"]

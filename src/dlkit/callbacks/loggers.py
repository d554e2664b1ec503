"""Write each row of the history somewhere, without gaps or doubles when a run is killed and resumed.

After a resume the history in the checkpoint is the truth: rows that were logged after it was saved will be made again.
Files of dlkit's own are therefore rewritten from the history at the start of a fit, TensorBoard is told from which
step on to forget, and MLflow gets what it does not have yet. A log that cannot be written does not end a night's run:
it is told, and the next row includes what is missing.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlkit._optional import require
from dlkit._showing import safe
from dlkit.callbacks.base import Callback
from dlkit.runs.history import History, Row
from dlkit.runs.state import Run
from dlkit.storage.files import atomic_write

__all__ = ["CSVLogger", "JSONLinesLogger", "MLflowLogger", "TensorBoardLogger", "WandbLogger"]


class _FileLogger(Callback):
    """A file of lines that has all rows of the history: lines are added where that is enough, else all are written."""

    changes_numbers = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._columns: list[str] | None = None  # of the file as it is; None when it must be rewritten

    def on_fit_start(self, run: Run) -> None:
        self._columns = None
        self._write(run, [])

    def on_log(self, run: Run, row: Row) -> None:
        self._write(run, [row])

    def _write(self, run: Run, new: list[Row]) -> None:
        if not run.write_files:
            return
        known, self._columns = self._columns, None
        columns = self._columns_of(run.history, new, known)
        whole = known != columns
        text = self._lines(run.history.rows if whole else new, columns, whole=whole)
        if _tell_failure(lambda: (_write if whole else _append)(self.path, text), str(self.path)):
            self._columns = columns

    def _columns_of(self, history: History, new: list[Row], known: list[str] | None) -> list[str]:
        """The columns that the file is to have; nothing where lines need not agree in them."""
        del history, new, known
        return []

    def _lines(self, rows: list[Row], columns: list[str], *, whole: bool) -> str:
        raise NotImplementedError


class CSVLogger(_FileLogger):
    """One line per row in a CSV file, with a header; a value that comes up later becomes a new column.

    Args:
        path: The file; its folder is made.

    >>> logger = CSVLogger("runs/mine/history.csv")
    """

    def _columns_of(self, history: History, new: list[Row], known: list[str] | None) -> list[str]:
        fits = known is not None and all(name in known for row in new for name in row)
        return known if fits and known is not None else list(history)

    def _lines(self, rows: list[Row], columns: list[str], *, whole: bool) -> str:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="")
        if whole:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


class JSONLinesLogger(_FileLogger):
    """One JSON object per row and line; NaN and infinities are written as strings, because JSON has none.

    Args:
        path: The file; its folder is made.

    >>> logger = JSONLinesLogger("runs/mine/history.jsonl")
    """

    def _lines(self, rows: list[Row], columns: list[str], *, whole: bool) -> str:
        del columns, whole
        return "".join(map(_json_line, rows))


def _tell_failure(write: Callable[[], None], where: str) -> bool:
    """Whether it worked; a full disk or a server that is away is told, and the next row includes what is missing."""
    try:
        write()
    except Exception as error:  # noqa: BLE001  (each tracking library raises errors of its own)
        warnings.warn(safe(f"could not log to {where}: {error}; the next row includes what is missing"), stacklevel=3)
        return False
    return True


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(text.encode())


def _append(path: Path, text: str) -> None:
    with open(path, "r+b") as file:  # a file that somebody removed is rewritten, not begun in its middle
        file.seek(0, os.SEEK_END)
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
        """Open the file; whatever it has of later steps than the run (of a killed process) is forgotten."""
        if run.write_files:
            require("tensorboard", extra="tensorboard")
            summary = require("torch.utils.tensorboard", extra="tensorboard")
            self._writer = summary.SummaryWriter(str(self.log_dir), purge_step=run.step + 1)

    def on_log(self, run: Run, row: Row) -> None:
        if self._writer is not None:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name, value, row["step"])
            self._writer.flush()

    def on_fit_end(self, run: Run) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class MLflowLogger(Callback):
    """Metrics for MLflow (extra `mlflow`); a resumed run continues in the same MLflow run.

    Args:
        experiment: The experiment's name.
        tracking_uri: Where MLflow keeps its data: a database such as `"sqlite:///mlflow.db"`, or a server; None for
            MLflow's own default.

    >>> logger = MLflowLogger("ants", tracking_uri="sqlite:///mlflow.db")
    """

    changes_numbers = False

    def __init__(self, experiment: str, *, tracking_uri: str | None = None) -> None:
        self.experiment, self.tracking_uri = experiment, tracking_uri
        self._client: Any = None
        self._run_id: str | None = None
        self._logged: dict[str, set[int]] = {}  # the steps that MLflow has, by metric

    def on_fit_start(self, run: Run) -> None:
        if not run.write_files:
            return
        mlflow = require("mlflow", extra="mlflow")
        self._client, self._logged = mlflow.MlflowClient(tracking_uri=self.tracking_uri), {}
        if self._run_id is None:
            found = self._client.get_experiment_by_name(self.experiment)
            identity = found.experiment_id if found else self._client.create_experiment(self.experiment)
            self._run_id = self._client.create_run(identity).info.run_id

    def on_log(self, run: Run, row: Row) -> None:
        """Log the values of this row, and of earlier ones that could not be logged."""
        if self._client is not None:
            _tell_failure(lambda: self._log_new(run.history), f"MLflow ({self.tracking_uri or 'its default place'})")

    def _log_new(self, history: History) -> None:
        entities, now = require("mlflow.entities", extra="mlflow"), int(time.time() * 1000)
        new = [
            entities.Metric(name, float(value), now, row["step"])
            for row in history.rows
            for name, value in row.items()
            if name != "step" and row["step"] not in self._steps_of(name)
        ]
        for start in range(0, len(new), 1000):  # as many as a server takes at once
            part = new[start : start + 1000]
            self._client.log_batch(self._run_id, metrics=part)
            for metric in part:
                self._logged[metric.key].add(metric.step)

    def _steps_of(self, name: str) -> set[int]:
        if name not in self._logged:
            self._logged[name] = {metric.step for metric in self._client.get_metric_history(self._run_id, name)}
        return self._logged[name]

    def on_fit_end(self, run: Run) -> None:
        if self._client is not None and run.cursor.finished:
            _tell_failure(lambda: self._client.set_terminated(self._run_id), "MLflow")

    def state_dict(self) -> dict[str, Any]:
        return {} if self._run_id is None else {"run_id": self._run_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._run_id = state["run_id"]


class WandbLogger(Callback):
    """Metrics for Weights & Biases (extra `wandb`), offline unless you say otherwise.

    A resumed run continues under the same id. Offline, each process writes its own folder; `wandb sync` joins them.

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
        if not run.write_files:
            return
        wandb = require("wandb", extra="wandb")
        folder = None if self.dir is None else os.fspath(self.dir)
        self._run = wandb.init(project=self.project, mode=self.mode, dir=folder, id=self._run_id, resume="allow")
        self._run_id = self._run.id

    def on_log(self, run: Run, row: Row) -> None:
        """Log the values; wandb drops a step that it already has."""
        if self._run is not None:
            self._run.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])

    def on_fit_end(self, run: Run) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None

    def state_dict(self) -> dict[str, Any]:
        return {} if self._run_id is None else {"run_id": self._run_id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._run_id = state["run_id"]

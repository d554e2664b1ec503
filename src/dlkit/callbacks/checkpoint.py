"""Save the whole run, keep the newest and the best, and bring the best weights back at the end."""

from __future__ import annotations

import functools
import math
import os
import secrets
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dlkit._arguments import whole_number
from dlkit._language import Message
from dlkit.callbacks.base import Callback, warn_unmeasured
from dlkit.errors import CheckpointError
from dlkit.runs import rows
from dlkit.runs.checking import check_weights
from dlkit.runs.checkpointfile import CheckpointWarning, load_checkpoint
from dlkit.runs.every import Every
from dlkit.runs.history import Row
from dlkit.runs.modelfile import FIELD, check_model_file, outline_of, write_model_file
from dlkit.runs.parts import load_parts, remember
from dlkit.runs.snapshot import Snapshot
from dlkit.runs.state import Cursor, Run
from dlkit.runs.store import CheckpointStore, StoredCheckpoint

__all__ = ["Checkpoint"]


class Checkpoint(Callback):
    """Keeps a run's state in a folder, so that the same script resumes however it ended.

    With this callback, `fit` continues what is in the folder (`resume="auto"`). Files are written atomically, carry
    a checksum, and load with `weights_only=True`; an older good one goes only after the newer one is safe. Only one
    process may train in a folder. After the fit the best weights are back in the model.

    Args:
        dir: The run's folder; made when needed.
        monitor: The value that decides which checkpoint is best. A run without validation data keeps no best.
        keep_best: How many of the best to keep; 0 for none.
        keep_last: How many of the newest to keep, at least 1. Two by default: a damaged newest file has a forerunner.
        every: When to save besides improvements and ends: `"epoch"`, `"500 steps"`, `"10 min"`.
        background: Write in a thread; training only waits for the state to be copied.
        restore_best: Put the best weights into the model when the fit ends, however it ends; the last good ones, when
            there is no best and those in memory are corrupted (see `StopOnNaN`).
        mode: "min" or "max"; None takes the direction from the metric itself.
        model_file: A file for `dlkit.load`, written when the fit ends with the weights that are then in the model: the
            best ones. What it needs beside them is taken from the data and the model, and missed at the start.

    Several Checkpoints keep the best by several values, each in its own folder. The first one is the run's: a fit
    continues from its folder (from the others' where it has nothing), and its best weights come back; those of the
    others are in `best` and in their model files.

    Raises:
        RunLockedError: at the start of the fit, if another process trains in the folder.

    >>> checkpoint = Checkpoint("runs/mine", every="500 steps")
    >>> checkpoint.best is None
    True
    """

    order = 1000

    def __init__(
        self,
        dir: str | os.PathLike[str],  # noqa: A002  (the field's name for it)
        monitor: str = "val_loss",
        keep_best: int = 1,
        keep_last: int = 2,
        every: str | Every = "epoch",
        background: bool = True,
        restore_best: bool = True,
        mode: str | None = None,
        model_file: str | os.PathLike[str] | None = None,
    ) -> None:
        keep_last = whole_number("keep_last", keep_last, least=1)
        keep_best = whole_number("keep_best", keep_best, least=0)
        self.dir, self.monitor, self.mode = Path(dir), monitor, mode
        self.every, self.background, self.restore_best = Every.parse(every), background, restore_best
        self.store: CheckpointStore = CheckpointStore(self.dir, keep_last=keep_last, keep_best=keep_best)
        self.model_file = None if model_file is None else Path(model_file)
        self._snapshot = Snapshot()
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[Any] | None = None
        self._saved_at = _place(Cursor())  # where a run begins there is nothing to save
        self._candidate: float | None = None
        self._outline = ""
        self._next_time = 0.0
        self._last_count = 0

    @property
    def last(self) -> Path | None:
        """The newest checkpoint file, or None."""
        self._join()
        return self.store.last

    @property
    def best(self) -> Path | None:
        """The file with the best monitored value, or None."""
        self._join()
        return self.store.best

    def on_fit_start(self, run: Run) -> None:
        if self.model_file is not None:
            check_model_file(run)
        self._find_direction(run)
        self._outline = outline_of(run) if run.write_files else ""
        self._candidate = None
        self._last_count = self._count(run)
        self._next_time = time.monotonic() + self.every.number
        self._saved_at = _place(run.cursor)

    def on_log(self, run: Run, row: Row) -> None:
        """Remember a value that would be among the best; the state is saved at the safe point that follows."""
        value = row.get(self.monitor)
        self._candidate = float(value) if value is not None else None
        if value is None and self.mode is not None:
            warn_unmeasured(self, self.monitor, run, row)

    def on_safe_point(self, run: Run) -> None:
        due = self._due(run)
        if run.shards is not None and self.every.unit == "seconds":  # each has its own clock
            due = run.world.any(due and run.world.leads)
        if not due and self._candidate is None and run.stop_reason is None:
            return  # after most steps
        value, self._candidate = self._candidate, None
        among_best = value is not None and self._among_best(run, value)
        stopping = run.stop_reason is not None and run.keep_state and self._saved_at != _place(run.cursor)
        save = (due or among_best or stopping) and run.write_files and run.keep_state
        if run.shards is not None:
            save = run.world.any(save)  # what is saved is put together from the shares of all
        if save:
            self._save(run, value if among_best else None, regular=due or stopping)

    def on_fit_end(self, run: Run) -> None:
        self._join()
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None
        if run.weights_from is not None:
            self._write_own_best(run)  # an earlier Checkpoint has brought its best weights back, and they stay
            return
        if self.restore_best and run.write_files:
            newest = [] if run.keep_state else sorted(self.store.entries, key=lambda entry: -entry.number)
            self._restore(run, [*self.store.best_entries(self.store.keep_best), *newest])
        if self.model_file is not None and run.write_files and run.step:
            self._write_model(run, self.model_file)

    def bring_back(self, run: Run) -> bool:
        self._find_direction(run)
        return self._restore(run, self.store.best_entries(self.store.keep_best))

    def _find_direction(self, run: Run) -> None:
        judged = self.mode is not None or self.monitor in run.directions
        if not judged and self.monitor != "val_loss":
            run.higher_is_better(self.monitor)  # raises, and names what there is
        self.store.higher_is_better = judged and run.higher_is_better(self.monitor, self.mode)

    def _write_own_best(self, run: Run) -> None:
        if self.model_file is None or not run.write_files:
            return
        put_back, step = remember(run.model), run.weights_from
        best = self.store.best_entries(self.store.keep_best) if self.restore_best else []
        any(self._taken(run, entry, parts=False) for entry in best)
        self._write_model(run, self.model_file)
        put_back()
        run.weights_from = step

    def _write_model(self, run: Run, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_model_file(run, path)
            run.say(
                Message("model file {path} written; dlkit.load({name!r}) predicts with it", path=path, name=str(path))
            )
        except OSError as error:
            told = Message("could not write the model file {path}: {error}", path=path, error=error)
            warnings.warn(told, CheckpointWarning, stacklevel=3)

    def _due(self, run: Run) -> bool:
        if self.every.unit == "seconds":
            if time.monotonic() < self._next_time:
                return False
            self._next_time = time.monotonic() + self.every.number
            return True
        count = self._count(run)
        if count == self._last_count or count % self.every.number:
            return False
        self._last_count = count
        return True

    def _count(self, run: Run) -> int:
        return run.cursor.step if self.every.unit == "steps" else run.cursor.epoch

    def _among_best(self, run: Run, value: float) -> bool:
        if math.isnan(value) or self.store.keep_best == 0:
            return False
        self._join(run)  # the index must know the one before
        best = self.store.best_entries(self.store.keep_best)
        if len(best) < self.store.keep_best:
            return True
        worst = best[-1].value or 0.0
        return value > worst if self.store.higher_is_better else value < worst

    def _save(self, run: Run, value: float | None, *, regular: bool) -> None:
        self._join(run)  # the snapshot's memory is free again only when the file before is written
        state = {**run.capture(), FIELD: self._outline}
        if not run.keep_state:
            return  # reading the last losses for it has shown that they are not numbers
        place: dict[str, Any] = {"step": run.cursor.step, "epoch": run.cursor.epoch, "value": value, "regular": regular}
        self._saved_at = _place(run.cursor)
        state = self._snapshot.take(state)
        if run.shards is None:
            write: Callable[[], Any] = functools.partial(self.store.save, state, **place)
        else:
            write = self._writer_of_rows(run, state, place)
        if self.background:
            self._writer = self._writer or ThreadPoolExecutor(1, thread_name_prefix="dlkit-checkpoint")
            self._writing = self._writer.submit(write)
        else:
            self._report(write)

    def _writer_of_rows(self, run: Run, state: dict[str, Any], place: dict[str, Any]) -> Callable[[], None]:
        """Each process writes what it holds; the leading one the rest, and the index, when all have done so."""
        world, held = run.world, state.pop(rows.FIELD)
        stem, save = world.everybodys((self.store.next_stem(run.cursor.step), secrets.token_hex(8)))[0]
        files = [rows.name_of(stem, rank, world.size) for rank in range(world.size)]

        def write() -> None:
            failed = ""
            try:
                rows.write_rows(self.dir / files[world.rank], held, save)
            except OSError as error:
                failed = f"process {world.rank}: {error}"
            world.tell(save, failed)
            if not world.leads:
                return
            try:
                reasons = [each for each in (failed, *world.told(save)) if each]
            except RuntimeError as error:
                reasons = [str(error)]
            if not reasons:
                self.store.save({**state, rows.FIELD: {"files": files, "save": save}}, **place)
                return
            for name in files:
                (self.dir / name).unlink(missing_ok=True)
            raise OSError("; ".join(reasons))

        return write

    def _join(self, run: Run | None = None) -> None:
        if self._writing is None:
            return
        while run is not None and run.shards is not None and run.world.any(not self._writing.done()):
            time.sleep(0.01)  # so that a process that is gone is noticed, whose rows would be waited for
        writing, self._writing = self._writing, None
        self._report(writing.result)

    def _report(self, write: Callable[[], Any]) -> None:
        """A disk that is full must not end a night's run: say it loudly, keep the old files, continue."""
        try:
            write()
        except OSError as error:
            kept = Message("there is no older one")
            if self.store.last:
                kept = Message("{name} is still good", name=self.store.last.name)
            message = Message(
                "could not save a checkpoint in {folder}: {error}; {kept}; training continues",
                folder=self.dir,
                error=error,
                kept=kept,
            )
            warnings.warn(message, CheckpointWarning, stacklevel=4)

    def _restore(self, run: Run, entries: list[StoredCheckpoint]) -> bool:
        """The weights of the first readable entry: the best, or the newest if those in memory are corrupted."""
        entry = next((entry for entry in entries if self._taken(run, entry, parts=True)), None)
        if entry is not None:
            run.eval_model = run.model  # a later evaluation must not use an average of other steps
            which = Message("last good")
            if entry.value is not None:
                which = Message("best ({monitor} {value:.6g})", monitor=self.monitor, value=entry.value)
            where = {"step": entry.step, "file": entry.file}
            run.say(Message("{which} weights restored, of step {step} ({file})", which=which, **where))
        return entry is not None

    def _taken(self, run: Run, entry: StoredCheckpoint, *, parts: bool) -> bool:
        try:
            state = load_checkpoint(self.dir / entry.file)
            field = "eval_model" if state.get("eval_model") is not None else "model"
            check_weights(state.get(field), run.model, field, run.unfilled.get("model"))
            if parts:
                load_parts(run, state, eval_model=field == "eval_model")
        except CheckpointError as error:  # whatever is wrong with one file, the next may be good
            told = Message("could not restore the best weights: {error}", error=error)
            warnings.warn(told, CheckpointWarning, stacklevel=4)
            return False
        run.model.load_state_dict(state[field])
        run.weights_from = entry.step
        return True


def _place(cursor: Cursor) -> tuple[int, int, int]:
    return cursor.step, cursor.batch, cursor.validated

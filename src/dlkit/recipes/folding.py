"""The folds of a cross-validation: a run for each, what they came to, and the model that is trained on everything."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dlkit._arguments import whole_number
from dlkit._language import Message
from dlkit._progress import bars
from dlkit._showing import Lines, safe
from dlkit.distributed import World
from dlkit.errors import ArgumentError, ResumeError
from dlkit.recipes.fold_scores import FoldScores
from dlkit.recipes.identity import saved_settings
from dlkit.recipes.reading import WITHOUT_TEST, Data, read_data
from dlkit.splits import Fold

__all__ = ["FOLDS_FILE", "train_folds"]

#: What the table of the folds' figures is called in the folder of a run.
FOLDS_FILE = "folds.csv"
_VAL = 0.1  # of what a fold does not test on: chooses the epoch


def train_folds(
    train: Callable[..., Any],
    source: Any,
    folds: int,
    out: str | os.PathLike[str] | None,
    reading: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Any:
    """Train once per fold, each evaluated on its own test part, and then on everything.

    Args:
        train: `dlkit.recipes.train`, for one fold.
        source: See there.
        folds: How many.
        out: See there.
        reading: How to read the source.
        settings: The other arguments of `train`.

    Returns:
        What `train` gave for everything, with the folds' figures; for a fold that was interrupted what it gave.
    """
    number_of = whole_number("folds", folds, least=2)
    if isinstance(source, Data):
        raise ArgumentError(f"folds={folds}: this data is cut into parts already; give its source to train itself")
    if reading.get("fractions") is not None:
        raise ArgumentError(
            f"fractions={reading['fractions']!r}: folds={folds} says how the data is cut; leave one of them out"
        )
    settings, seed, rows = dict(settings), settings["seed"], list[dict[str, float]]()
    say = _teller(settings["progress"])
    # In time the last fold trains on most, so it is the one that says which model suits.
    order = range(number_of, 0, -1) if reading.get("time") is not None else range(1, number_of + 1)
    folder: Path | None = None
    for number in order:
        with bars(settings["progress"]):
            parts = read_data(source, seed=seed, **{**reading, "fractions": Fold(number, of=number_of, val=_VAL)})
        if folder is None:
            folder = Path("runs") / parts.name if out is None else Path(out)
            _refuse_another(folder, number_of, settings)
            say(Lines.said_by(parts))
        own = folder / f"fold-{number}"
        done = train(parts, out=own, **settings)
        if done.interrupted:
            return dataclasses.replace(done, folder=folder)
        sizes = {name: float(len(getattr(done.data, name))) for name in ("train", "val", "test")}
        rows.append({"fold": number, **{name: int(size) for name, size in sizes.items()}, **done.metrics})
        figures = ", ".join(f"{name} {x:.4g}" for name, x in done.metrics.items())
        say(Message("fold {number} of {folds}: {figures}", number=number, folds=number_of, figures=figures))
        if number == order[0]:
            settings |= _settled(parts, saved_settings(own), settings)
            say(
                Message(
                    "the other folds and the model on all data take what this one chose: {arch}", arch=settings["arch"]
                )
            )
    assert folder is not None
    scores = FoldScores(rows=tuple(sorted(rows, key=lambda row: row["fold"])))
    return _on_everything(train, source, folder, scores, reading, settings)


def _on_everything(
    train: Callable[..., Any],
    source: Any,
    folder: Path,
    scores: FoldScores,
    reading: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Any:
    """The model that the folds' mean speaks of: trained on all samples but the tenth that chooses the epoch."""
    with bars(settings["progress"]):
        data = read_data(source, seed=settings["seed"], **{**reading, "fractions": (1 - _VAL, _VAL)})
    how = (
        *(line for line in data.how if line != WITHOUT_TEST),
        Message("judged by folds; {scores}", scores=scores.told()),
    )
    done = train(dataclasses.replace(data, how=how, folds=scores), out=folder, **settings)
    if World.of_environment().leads:
        scores.write(folder / FOLDS_FILE)
    return dataclasses.replace(done, metrics=scores.mean, judged_on="folds", standing=None)


def _refuse_another(folder: Path, folds: int, settings: Mapping[str, Any]) -> None:
    saved = saved_settings(folder) if settings["resume"] else {}
    if saved and saved.get("folds") != folds:
        raise ResumeError(
            f"{folder} holds another run: folds: there {saved.get('folds')}, now {folds}; choose another folder, out=, "
            "or start over with resume=False (what is there is moved aside, not deleted)"
        )


def _settled(data: Data, saved: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """What the first fold has chosen by its samples, for the others to take."""
    found = {"arch": saved["arch"], "lr": saved.get("found_lr")}
    if data.kind == "images" and saved["arch"] == "small":
        found["image_size"] = saved["image_size"][0]
    if data.kind == "sounds":
        found |= {name: saved[name] for name in ("sample_rate", "seconds")}
    return {name: value for name, value in found.items() if value is not None and said[name] in (None, "find")}


def _teller(progress: bool) -> Callable[[str], None]:
    def say(line: str) -> None:
        if progress and World.of_environment().leads:
            sys.stderr.write(f"{safe(line, most=0)}\n")

    return say

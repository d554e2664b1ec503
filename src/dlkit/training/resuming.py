"""The run's state as plain data and back: what is saved, what must fit, what is only told."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dlkit import rng
from dlkit._showing import Lines
from dlkit.callbacks.base import Callback
from dlkit.errors import ResumeError
from dlkit.runs.checking import check_fits, check_state, restoring
from dlkit.runs.history import History
from dlkit.runs.parts import load_parts, parts_state, tell_unsaved
from dlkit.runs.state import Cursor, Run
from dlkit.training.handed import take
from dlkit.training.identity import differences
from dlkit.training.origin import Settings, named
from dlkit.training.probing import differing, marks_of
from dlkit.training.schedules import ScriptRates, planned, put_functions
from dlkit.training.sources import Source

__all__ = ["FORMAT", "Script", "capture", "restore"]

FORMAT = 1


def capture(
    run: Run, source: Source, callbacks: Sequence[Callback], settings: Settings, identity: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole state of a run at a safe point.

    Args:
        run: The run.
        source: The training data.
        callbacks: All of them.
        settings: How the run was set up.
        identity: What the run is known by.
    """
    tell_unsaved(run)
    states = {name: callback.state_dict() for name, callback in named(callbacks).items()}
    return {
        "format": FORMAT,
        "model": run.model.state_dict(),
        "eval_model": run.eval_model.state_dict() if run.eval_model is not run.model else None,
        **parts_state(run),
        "optimizers": {name: optimizer.state_dict() for name, optimizer in run.optimizers.items()},
        "scaler": run.scaler.state_dict() if run.scaler is not None else None,
        "callbacks": {name: state for name, state in states.items() if state},
        "losses": run.losses.state_dict(),
        "history": run.history.rows,
        "logged": run.logged,
        "cursor": dataclasses.asdict(run.cursor),
        "source": source.state_dict(),
        "rng": rng.state_dict(),
        "settings": dataclasses.asdict(settings),
        "identity": dict(identity),
        "epochs": run.epochs,
        "threads": torch.get_num_threads(),
        "versions": {"torch": str(torch.__version__)},
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Script:
    """What a script says of its run, to be compared with what is saved.

    Attributes:
        settings: How it set the run up.
        identity: What the run is known by.
        rates: The settings of optimizers and schedules, where they are to hold instead of the saved ones; else None.
        names_file: Whether the user has named the checkpoint, so that another run's is meant.
    """

    settings: Settings
    identity: Mapping[str, Any]
    rates: ScriptRates | None
    names_file: bool


def restore(
    run: Run, state: Mapping[str, Any], source: Source, callbacks: Sequence[Callback], script: Script
) -> list[str]:
    """Put a run back to a saved state; returns what the user should know, line by line.

    Args:
        run: Fresh, with the model and the optimizers of the script.
        state: What `capture` gave.
        source: The training data.
        callbacks: All of them.
        script: What the script says.

    Raises:
        ResumeError: data, model or optimizer do not fit, or it is another run; names each difference.
        DamagedCheckpointError: a field does not hold what it should; nothing or a part has been put back.
    """
    _check_format(state)
    check_state(state)
    with restoring("settings"):
        _refuse_differences(state["settings"]["must"], script.settings.must)
        if script.rates is None:
            _refuse_another_schedule(state["settings"]["may"].get("schedule"), script.settings.may.get("schedule"))
    with restoring("identity"):
        other = _other_run(run, state, source, script)
    check_fits(state, run)
    _load(run, state, source, callbacks, schedules=script.rates is None)
    if script.rates is not None:
        script.rates.put(run, callbacks)
    else:
        put_functions(callbacks)
    saved, now = state["settings"]["may"], script.settings.may
    with restoring("settings"):
        return [*other, *_differences(saved, now, state["callbacks"], script.rates is not None)]


def _other_run(run: Run, state: Mapping[str, Any], source: Source, script: Script) -> list[str]:
    """Refuse another run's checkpoint; of a file that the user has named it is only told that it is one."""
    if run.step > 0:  # this object has trained already, and continues with its own
        return []
    saved = {"seed": state["settings"]["may"]["seed"], **state.get("identity", {})}
    found = differences(saved, script.identity)
    data = script.identity.get("data")
    line = differing(saved.get("data"), data)
    if line is not None and differing(data, marks_of(source)) is None:  # else it is other data at each look
        found.append(line)
    if found and not script.names_file:
        raise ResumeError(
            Lines.of(
                "the folder holds the checkpoints of another run:",
                *(f"  {line}" for line in found),
                "use another folder, or fit(..., resume=False) to start over (the old files are moved into a folder "
                "'earlier-1', not deleted); to continue that run with this script, name the file: "
                "fit(..., resume='.../checkpoint-....pt')",
            )
        )
    return found


def _refuse_another_schedule(saved: list[str] | None, now: list[str] | None) -> None:
    """What one schedule has saved is nothing that another can continue from; that one was added or left out is told."""
    if saved and now and list(saved) != list(now):
        raise ResumeError(
            f"schedule: saved {', '.join(saved)}, this script makes {', '.join(now)}, which cannot continue from it; "
            "use "
            "the saved one, or fit(..., rates='script'), which takes the rate where the new one stands after as many "
            "steps"
        )


def _load(
    run: Run, state: Mapping[str, Any], source: Source, callbacks: Sequence[Callback], *, schedules: bool
) -> None:
    with restoring("model"):
        run.model.load_state_dict(state["model"])
    load_parts(run, state)
    for name in state.get("parts", {}):
        take(run, run.parts.get(name))
    for name, optimizer in run.optimizers.items():
        with restoring(f"optimizers[{name!r}]"):
            optimizer.load_state_dict(state["optimizers"][name])
        take(run, optimizer)
    if run.scaler is not None and state["scaler"] is not None:
        with restoring("scaler"):
            run.scaler.load_state_dict(state["scaler"])
    for name, callback in named(callbacks).items():
        if name in state["callbacks"] and (schedules or not planned([callback])):
            with restoring(f"callbacks[{name!r}]"):
                callback.load_state_dict(state["callbacks"][name])
            take(run, callback)
            take(run, callback.scheduler)
    with restoring("losses"):
        run.losses.load_state_dict(state["losses"])
    run.history, run.logged = History(state["history"]), dict(state.get("logged", {}))
    run.cursor = Cursor(**state["cursor"])
    run.seed = state["settings"]["may"]["seed"]
    with restoring("source"):
        source.load_state_dict(state["source"])
    with restoring("rng"):
        rng.load_state_dict(state["rng"])


def _check_format(state: Mapping[str, Any]) -> None:
    if state.get("format") != FORMAT:
        raise ResumeError(
            f"the checkpoint has format {state.get('format')!r}, this dlkit reads format {FORMAT}; "
            "resume with the dlkit that wrote it, or pass resume=False"
        )


def _refuse_differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    found = list[str]()
    for name in now:
        if name == "model" and saved[name] != now[name]:
            found += _model_differences(saved[name], now[name], "model")
        elif name == "parts":
            found += _part_differences(saved.get(name, {}), now[name])
        elif isinstance(now[name], dict) and name == "data":
            found += _differ(saved[name], now[name], prefix="data, ")
        elif saved[name] != now[name]:
            found += _optimizer_differences(saved[name], now[name]) if name == "optimizer" else []
            found += [f"{name}: saved {saved[name]}, now {now[name]}"] if name != "optimizer" else []
    if found:
        raise ResumeError(
            Lines.of(
                "the run in the folder does not fit this script:",
                *(f"  {difference}" for difference in found),
                "use the script as it was, another folder, or fit(..., resume=False) to start over "
                "(the old files are moved into a folder 'earlier-1', not deleted)",
            )
        )


def _differ(saved: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = dict.fromkeys([*saved, *now])
    return [
        f"{prefix}{key}: saved {saved.get(key)}, now {now.get(key)}" for key in keys if saved.get(key) != now.get(key)
    ]


def _model_differences(saved: Mapping[str, Any], now: Mapping[str, Any], name: str) -> list[str]:
    lines = [line.replace(" None", " nothing") for line in _differ(saved, now, prefix=f"{name}, ")]
    return lines if len(lines) <= 6 else [*lines[:6], f"{name}: {len(lines) - 6} more tensors differ"]


def _part_differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in dict.fromkeys([*saved, *now]):
        lines += _model_differences(saved.get(name, {}), now.get(name, {}), name)
    return lines


def _optimizer_differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in dict.fromkeys([*saved, *now]):
        old, new = saved.get(name), now.get(name)
        if old is None or new is None:
            lines.append(f"{name}: saved {'nothing' if old is None else old['class']}, now {new and new['class']}")
        elif old["class"] != new["class"]:
            lines.append(f"{name}: saved {old['class']}, now {new['class']}")
        elif old != new:
            counts = [[len(group) for group in each["parameters"]] for each in (old, new)]
            lines.append(f"{name}: saved groups of {counts[0]} parameters, now {counts[1]} (or other shapes)")
    return lines


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any], states: Mapping[str, Any], rates: bool) -> list[str]:
    lines = []
    for key in dict.fromkeys([*saved, *now]):
        if key.startswith(_OF_ONE) and (key not in saved or key not in now):
            continue  # of another object, which is told as such
        old, new = saved.get(key), now.get(key)
        if isinstance(old, tuple | list) and isinstance(new, tuple | list):
            old, new = list(old), list(new)
        if old == new:
            continue
        if key == "callbacks":
            lines += _callback_differences(old or [], new or [], states)
        else:
            holds = f"the {'new' if _new_holds(key, rates) else 'saved'} one holds"
            lines.append(f"{key}: saved {old}, this script says {new}; {holds}")
    return lines


def _callback_differences(old: Sequence[str], new: Sequence[str], states: Mapping[str, Any]) -> list[str]:
    gone = [f"callback {name} was there before and is missing now" for name in old if name not in new]
    dropped = [f"{line}; its state is dropped" if line.split()[1] in states else line for line in gone]
    return dropped + [f"callback {name} is new and starts fresh" for name in new if name not in old]


def _new_holds(key: str, rates: bool) -> bool:
    """Whether this script's value is used: of what the saved state does not contain, or what was asked for."""
    if key == "seed" or key.startswith("schedule, ReduceLROnPlateau"):
        return False
    if key in ("precision", "loss", "stored views", "validate every", "validation data") or key.endswith(", function"):
        return True
    return key.startswith("loss, ") or (rates and not key.startswith("state of "))


_OF_ONE = ("loss, ", "state of ", "schedule")

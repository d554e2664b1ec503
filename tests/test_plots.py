"""The pictures: what is drawn, not only that a file appears."""

from __future__ import annotations

import base64
import io
import itertools
import pickle
import wave
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from sklearn.metrics import roc_auc_score

import warm
from dlkit import plots
from dlkit.errors import ArgumentError
from dlkit.transforms.audio import LogMel

ORANGE = "#d55e00"


# --------------------------------------------------------------------------------------------------------- sample grid


def drawn(figure: Any) -> tuple[list[np.ndarray[Any, Any]], list[str], list[str]]:
    """The pixels, captions and frame colours in a sample grid, in the order of the samples."""
    axes = figure.axes[0]
    frames = [to_hex(patch.get_edgecolor()) for patch in axes.patches if isinstance(patch, Rectangle)]
    return [np.asarray(image.get_array()) for image in axes.images], [t.get_text() for t in axes.texts], frames


def test_grid_marks_exactly_the_wrong_ones() -> None:
    images = torch.rand(5, 1, 12, 10)
    figure = plots.sample_grid(images, [0, 1, 2, 1, 0], torch.tensor([0, 2, 2, 0, 0]), classes="ABC", columns=2)
    pixels, captions, frames = drawn(figure)
    for picture, image in zip(pixels, images, strict=True):
        np.testing.assert_allclose(picture, image[0], rtol=1e-6)
    assert captions == ["A", "C (is B)", "C", "A (is B)", "A"]
    assert [frame == ORANGE for frame in frames] == [False, True, False, True, False]
    assert figure.get_suptitle() == "5 samples under their predictions; 2 wrong"


@pytest.mark.parametrize(
    ("labels", "predictions", "title", "captions"),
    [
        (None, None, "2 samples", ["", ""]),
        ([1, 0], None, "2 samples under their classes", ["1", "0"]),
        (None, [1, 1], "2 samples under their predictions", ["1", "1"]),
    ],
)
def test_grid_says_what_it_shows(labels: Any, predictions: Any, title: str, captions: list[str]) -> None:
    figure = plots.sample_grid(torch.rand(2, 8, 8), labels, predictions)
    assert figure.get_suptitle() == title
    assert drawn(figure)[1] == captions


def test_grid_lays_samples_out_in_reading_order() -> None:
    figure = plots.sample_grid(torch.rand(7, 9, 9), columns=3)
    left_tops = [(image.get_extent()[0], image.get_extent()[3]) for image in figure.axes[0].images]
    assert sorted(left_tops, key=lambda place: (place[1], place[0])) == left_tops
    assert len({top for _, top in left_tops}) == 3
    assert len({left for left, _ in left_tops}) == 3


def test_grid_takes_bytes_colour_and_normalised_images() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (2, 3, 6, 6), dtype=np.uint8)
    np.testing.assert_allclose(drawn(plots.sample_grid(colour))[0][1], colour[1].transpose(1, 2, 0) / 255)
    normalised = torch.tensor([-2.0, 0.0, 2.0, 1.0]).view(1, 2, 2)
    np.testing.assert_allclose(drawn(plots.sample_grid(normalised))[0][0], [[0, 0.5], [1, 0.75]])
    half = torch.full((1, 1, 4, 4), 0.5, dtype=torch.bfloat16, requires_grad=True)
    np.testing.assert_allclose(drawn(plots.sample_grid(half))[0][0], np.full((4, 4), 0.5))


def test_grid_keeps_the_shape_of_images_that_differ_in_size() -> None:
    figure = plots.sample_grid([torch.rand(10, 20), torch.rand(1, 30, 15)])
    extents = [image.get_extent() for image in figure.axes[0].images]
    ratios = [abs(top - bottom) / (right - left) for left, right, bottom, top in extents]
    assert ratios == pytest.approx([0.5, 2.0])


def test_grid_captions_stay_over_their_own_images() -> None:
    classes = ["a name that does not end here", "and another one of them"]
    figure = plots.sample_grid(torch.rand(8, 8, 8), [0, 1] * 4, [1, 1] * 4, classes=classes)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert all(first.x1 <= second.x0 + 1 for first, second in itertools.pairwise(boxes))
    assert "…" in drawn(figure)[1][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": []}, "images is empty"),
        ({"images": torch.rand(2, 5, 8, 8)}, r"a single image here has shape \[5, 8, 8\]"),
        ({"images": torch.full((1, 4, 4), torch.nan)}, "NaN or infinite"),
        ({"labels": [1]}, "labels has 1 entries for 2 samples"),
        ({"labels": [0, 3], "classes": ["a", "b"]}, "class index 3 has no name: classes has 2"),
        ({"labels": [0, -1], "classes": ["a", "b"]}, "class index -1 has no name"),
        ({"predictions": torch.rand(2, 10)}, r"shape \[2, 10\]: pass predictions.argmax\(1\)"),
        ({"predictions": [0.5, 1.0]}, "class indices.*float64"),
        ({"labels": ["a", "b"]}, "labels is a list of class indices"),
        ({"columns": 0}, "columns is a whole number of at least 1; got 0"),
        ({"path": "grid.xyz"}, r"'grid\.xyz'.*png"),
        ({"path": "grid"}, "'grid'.*png"),
    ],
)
def test_grid_errors_name_the_argument(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        plots.sample_grid(**{"images": torch.rand(2, 8, 8), **arguments})


# --------------------------------------------------------------------------------------------------------------- curves

ROWS = [
    {"epoch": 1, "step": 10, "train_loss": 2.0, "lr": 0.1, "val_loss": 1.0, "val_accuracy": 0.5},
    {"epoch": 2, "step": 20, "train_loss": 1.0, "lr": 0.1, "val_loss": 0.6, "val_accuracy": 0.7},
    {"epoch": 3, "step": 30, "train_loss": 0.5, "lr": 0.1, "val_loss": 0.8, "val_accuracy": 0.9},
]


def lines(figure: Any) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Panel: curve: its places and values; the dotted line of the lowest loss is called "lowest"."""
    return {
        axes.get_ylabel(): {
            "lowest" if line.get_linestyle() == ":" else line.get_label(): (
                [float(x) for x in line.get_xdata()],
                [float(y) for y in line.get_ydata()],
            )
            for line in axes.lines
        }
        for axes in figure.axes
    }


def test_curves_draw_the_rows() -> None:
    figure = plots.curves(SimpleNamespace(rows=ROWS))
    assert lines(figure) == {
        "loss": {
            "training loss": ([1, 2, 3], [2.0, 1.0, 0.5]),
            "validation loss": ([1, 2, 3], [1.0, 0.6, 0.8]),
            "lowest": ([2, 2], [0, 1]),
        },
        "accuracy": {"validation accuracy": ([1, 2, 3], [0.5, 0.7, 0.9]), "lowest": ([2, 2], [0, 1])},
    }
    assert [axes.get_xlabel() for axes in figure.axes] == ["epoch", "epoch"]
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["lowest validation loss: 0.6 at epoch 2", "at epoch 2: accuracy 0.7"]


def test_curves_go_by_step_when_an_epoch_has_several_rows() -> None:
    rows = [{"epoch": 1, "step": step, "val_loss": 1 / step} for step in (5, 10, 15)]
    figure = plots.curves(SimpleNamespace(rows=rows))
    assert lines(figure)["loss"]["validation loss"][0] == [5, 10, 15]
    assert figure.axes[0].get_xlabel() == "step"


def test_curves_of_a_mapping_and_of_rows_without_validation() -> None:
    columns = {"train_loss": [3, 2, 1], "val_loss": [2.0], "lr": [0.1, 0.2, 0.1]}
    assert lines(plots.curves(columns)) == {
        "loss": {
            "training loss": ([1, 2, 3], [3, 2, 1]),
            "validation loss": ([1], [2.0]),
            "lowest": ([1, 1], [0, 1]),
        },
        "learning rate": {"lr": ([1, 2, 3], [0.1, 0.2, 0.1]), "lowest": ([1, 1], [0, 1])},
    }
    gaps = [{"epoch": 1, "train_loss": 1.0}, {"epoch": 2, "train_loss": 0.5, "val_loss": 0.4}]
    assert lines(plots.curves(SimpleNamespace(rows=gaps)))["loss"]["validation loss"] == ([2], [0.4])


def test_metrics_between_0_and_1_share_a_panel_and_others_do_not() -> None:
    figure = plots.curves({"val_f1": [0.1, 0.2], "val_accuracy": [0.3, 0.4], "val_rmse": [5, 4]})
    assert {panel: list(curves) for panel, curves in lines(figure).items()} == {
        "metric": ["validation f1", "validation accuracy"],
        "rmse": ["validation rmse"],
    }
    styles = [(line.get_color(), line.get_marker()) for line in figure.axes[0].lines]
    assert len({color for color, _ in styles}) == len({marker for _, marker in styles}) == 2


def test_curves_survive_nan_infinity_and_odd_names(tmp_path: Path) -> None:
    figure = plots.curves(
        {"val_loss": [float("nan"), 0.5, float("inf")], "val_$\\x$": [1, 2, 3], "val_a_b": [7, 8, 9]},
        path=tmp_path / "odd.png",
    )
    assert lines(figure)["loss"]["lowest"][0] == [2, 2]
    plots.curves({"val_loss": [float("nan")]}, path=tmp_path / "nan.png")
    assert (tmp_path / "odd.png").stat().st_size > 1000


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
@settings(max_examples=15)
def test_the_lowest_validation_loss_is_the_lowest(losses: list[float]) -> None:
    place = lines(plots.curves({"val_loss": losses}))["loss"]["lowest"][0][0]
    assert losses[int(place) - 1] == min(losses)


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ({}, "nothing to draw"),
        (SimpleNamespace(rows=[]), "nothing to draw"),
        ({"val_loss": ["low"]}, "'val_loss' in the history is 'low'"),
        ([1, 2], "got list"),
    ],
)
def test_curves_errors(history: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        plots.curves(history)


def test_learning_rates_are_drawn_with_the_suggestion(tmp_path: Path) -> None:
    rates, losses = [10.0**power for power in range(-5, 2)], [2.0, 2.0, 1.9, 1.2, 1.5, 90.0, float("nan")]
    figure = plots.lr_curve(rates, losses, 0.01, path=tmp_path / "lr.png")
    axes = figure.axes[0]
    curve, marked = axes.lines
    assert list(curve.get_xdata()) == rates
    assert list(curve.get_ydata())[:6] == losses[:6]
    assert list(marked.get_xdata()) == [0.01, 0.01]
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "learning rate", "loss")
    assert axes.get_ylim() == pytest.approx((1.12, 2.24))  # the explosion does not flatten the rest
    assert (tmp_path / "lr.png").is_file()
    assert len(plots.lr_curve([0.1], [1.0]).axes[0].lines) == 1


@pytest.mark.parametrize(
    ("rates", "losses", "message"),
    [([], [], "got 0 and 0"), ([1.0], [1.0, 2.0], "got 1 and 2"), ([0.0, 1.0], [1.0, 2.0], "larger than 0; got 0.0")],
)
def test_learning_rate_errors(rates: list[float], losses: list[float], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        plots.lr_curve(rates, losses)


# ----------------------------------------------------------------------------------------------------- confusion matrix


def cells(figure: Any) -> dict[tuple[int, int], str]:
    """The numbers written into the cells, by row and column."""
    return {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in figure.axes[0].texts}


def test_matrix_counts_rows_as_truth_and_columns_as_predictions() -> None:
    figure = plots.confusion_matrix([0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 0, 2], list("abc"), normalize=False)
    assert cells(figure) == {(0, 0): "2", (0, 1): "1", (1, 1): "1", (2, 0): "1", (2, 2): "1"}
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a  (3)", "b  (1)", "c  (2)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert axes.get_title(loc="left") == "66.7 % of 6 samples are right\nshown: samples"


def test_matrix_normalises_each_row() -> None:
    targets = torch.tensor([0] * 200 + [1] * 3)
    predictions = torch.tensor([1] + [0] * 199 + [1, 1, 0])
    figure = plots.confusion_matrix(targets, predictions, ["many", "few"])
    assert cells(figure) == {(0, 0): "100", (0, 1): "0.5", (1, 0): "33", (1, 1): "67"}


def test_matrix_colours_hits_blue_and_mistakes_orange_up_to_their_own_maximum() -> None:
    figure = plots.confusion_matrix([0] * 90 + [1] * 100, [0] * 80 + [1] * 108 + [0] * 2, ["a", "b"], normalize=False)
    colors = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(colors[1, 1], to_rgb("#0072B2"))  # 98 hits: the most
    np.testing.assert_allclose(colors[0, 1], to_rgb(ORANGE))  # 10 mistakes: the most
    assert np.all(colors[1, 0] > colors[0, 1])  # 2 mistakes: paler
    assert not np.allclose(colors[0, 0], colors[1, 1])


def test_numbers_stand_out_from_their_cells() -> None:
    rng = np.random.default_rng(0)
    targets, predictions = rng.integers(0, 10, 2000), rng.integers(0, 10, 2000)
    figure = plots.confusion_matrix(targets, np.where(rng.random(2000) < 0.7, targets, predictions), "ABCDEFGHIJ")
    colors = np.asarray(figure.axes[0].images[0].get_array())
    for text in figure.axes[0].texts:
        column, row = (int(value) for value in text.get_position())
        assert _contrast(to_rgb(text.get_color()), colors[row, column]) >= 3  # WCAG 2.1, 1.4.11


def _contrast(first: Any, second: Any) -> float:
    def luminance(color: Any) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    high, low = sorted([luminance(first), luminance(second)], reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_matrix_of_many_or_of_one_class() -> None:
    many = plots.confusion_matrix(range(60), range(60), [f"class {number}" for number in range(60)])
    assert cells(many) == {}
    assert len(many.axes[0].get_xticklabels()) == 60
    one = plots.confusion_matrix([0], [0], ["only"])
    assert cells(one) == {(0, 0): "100"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"predictions": [0, 2]}, r"predictions\[1\] is 2, but there are 2 classes \(0–1\)"),
        ({"targets": [-1, 0]}, r"targets\[0\] is -1"),
        ({"targets": []}, "targets is a list of class indices, at least one"),
        ({"predictions": [0]}, "predictions has 1 entries for 2 samples"),
        ({"predictions": torch.rand(2, 2)}, r"pass predictions.argmax\(1\)"),
    ],
)
def test_matrix_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        plots.confusion_matrix(**{"targets": [0, 1], "predictions": [0, 1], "classes": ["a", "b"], **arguments})


# ---------------------------------------------------------------------------------------------------------------- files


def test_pictures_are_saved_whole_into_new_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "grid.PNG"
    figure = plots.sample_grid(torch.rand(9, 28, 28), [0] * 9, [1] * 9, path=path)
    with Image.open(path) as picture:
        inches = figure.get_size_inches()
        assert picture.format == "PNG"
        assert picture.size == pytest.approx((inches[0] * 150, inches[1] * 150), abs=1)
        assert np.asarray(picture.convert("L")).std() > 20
    assert [file.name for file in path.parent.iterdir()] == ["grid.PNG"]
    plots.confusion_matrix([0, 1], [1, 1], ["$\\frac$", "b"], path=tmp_path / "matrix.svg")
    assert "<svg" in (tmp_path / "matrix.svg").read_text(encoding="utf-8")


def test_a_full_disk_leaves_the_old_picture(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    path.write_bytes(b"the old one")
    code = (
        "import resource, signal, sys; from dlkit import plots;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000));"
        "plots.curves({'val_loss': [1]}, path=sys.argv[1])"
    )
    done = warm.run(["-c", code, path])
    assert "File too large" in done.stderr
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_global_is_touched() -> None:
    code = (
        "import sys; sys.modules.pop('matplotlib.pyplot', None); import torch; from dlkit import plots;"
        "plots.sample_grid(torch.rand(2, 8, 8)); plots.curves({'val_loss': [1]});"
        "plots.confusion_matrix([0], [0], ['a']); assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = warm.run(["-c", code])
    assert done.returncode == 0, done.stderr


def test_a_waveform_and_a_spectrogram_say_what_their_axes_are(tmp_path: Path) -> None:
    samples = torch.sin(torch.arange(6_000) / 5).repeat(2, 1)
    wavy = plots.waveform(samples, 8_000, title="a tone", path=tmp_path / "wave.png")
    assert [axes.get_ylabel() for axes in wavy.axes] == ["channel 0", "channel 1"]
    assert wavy.axes[1].get_xlim() == (0, 0.75)
    levels = LogMel(sample_rate=8_000)(samples[0])
    shown = plots.spectrogram(levels, seconds=0.75, highest=4_000, path=tmp_path / "levels.svg")
    assert [axes.get_ylabel() for axes in shown.axes] == ["band, up to 4,000 Hz", "dB"]
    assert shown.axes[0].images[0].get_array().shape == tuple(levels.shape)
    assert {path.name for path in tmp_path.iterdir()} == {"wave.png", "levels.svg"}
    with pytest.raises(ArgumentError, match=r"a spectrogram \[bands, frames\], not of shape \[2, 6000, 1\]"):
        plots.spectrogram(samples[..., None])
    with pytest.raises(ArgumentError, match="NaN or infinity"):
        plots.waveform([float("nan")], 8_000)


def test_a_player_holds_the_recording_as_a_wav_file() -> None:
    player = plots.play(np.array([[0.5, -2.0, 0.0], [0.25, 0.0, 1.0]], np.float32), 8_000, title="<b>")
    with wave.open(io.BytesIO(player.content)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 8_000, 3)
        found = np.frombuffer(file.readframes(3), "<i2").reshape(3, 2)
    assert found.T.tolist() == [[16_384, -32_767, 0], [8_192, 0, 32_767]]
    shown = player._repr_html_()
    assert shown.startswith("<div>&lt;b&gt;</div><audio controls ")
    assert base64.b64encode(player.content).decode() in shown


# ------------------------------------------------------------------------------------------------- ROC and calibration


SAID = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])


def test_roc_names_the_area_that_the_metric_has() -> None:
    scores, truth = torch.rand(500, 3), torch.arange(500) % 3
    figure = plots.roc_curve(truth, scores, ["a$b$", "b", "c"])
    told = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    wanted = [roc_auc_score(truth == n, scores[:, n]) for n in range(3)]
    assert told == [f"{name} (area {area:.3f})" for name, area in zip(["a$b$", "b", "c"], wanted, strict=True)]


def test_calibration_is_what_the_report_draws() -> None:
    (line,) = plots.calibration_curve([0, 1, 1, 1], SAID).axes[0].lines[1:]
    np.testing.assert_allclose(line.get_xydata(), [[0.75, 0.75]])


def test_mistakes_are_the_surest_wrong_ones() -> None:
    images = torch.rand(4, 6, 6)
    pixels, captions, _ = drawn(plots.mistakes(images, [1, 1, 1, 0], SAID, classes="AB", most=2))
    np.testing.assert_allclose(pixels[0], images[0], rtol=1e-6)
    assert captions == ["A (is B)", "B (is A)"]


def test_no_mistake_is_a_sentence(tmp_path: Path) -> None:
    figure = plots.mistakes(torch.rand(4, 6, 6), SAID.argmax(1), SAID, path=tmp_path / "mistakes.png")
    assert [text.get_text() for text in figure.axes[0].texts] == ["no mistakes: all 4 answers are right"]
    with Image.open(tmp_path / "mistakes.png") as saved:
        assert saved.size[0] > 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.roc_curve([0, 0], SAID[:2]), "a ROC curve needs samples of a class and of others"),
        (lambda: plots.roc_curve([0], SAID[:2]), "targets has 1 entries for 2 samples"),
        (lambda: plots.calibration_curve([0, 1], SAID[:2] * 9), r"these between 0\.9 and 8\.1: pass logits\.softmax"),
        (lambda: plots.calibration_curve([0, 1], [[float("nan"), 1], [0, 1]]), "must be finite numbers"),
        (lambda: plots.mistakes(SAID[:3], [0, 0, 1, 1], SAID), "there are 3 images and 4 targets"),
    ],
    ids=["one-class", "lengths", "logits", "nan", "images"],
)
def test_what_cannot_be_drawn_of_answers_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call()


def test_a_figure_shows_itself_in_a_notebook_and_is_a_figure() -> None:
    figure = plots.roc_curve([0, 1], SAID[1:3])
    assert Image.open(io.BytesIO(figure._repr_png_())).size[0] > 100
    assert isinstance(pickle.loads(pickle.dumps(figure)), Figure)

"""One-way layers: each source file imports only from files that stand before it in the list below."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parent.parent / "src" / "dlkit"

# Every file of src/dlkit, exactly once; a file may import from those before it, in any place and also for types only.
# A new file goes right after the last one it imports from. The door of a room (`__init__`) comes after its files.
LAYERS = """
_version _language _cores _malloc _near _doors _showing _html errors _bounds _filekinds _textfiles _opening _optional
_frames _progress
storage/files storage/identity storage/arrays storage/appended storage/strings storage/caches storage/__init__
_documents _kinds specs/columns specs/table specs/series registry _torch_layers
_modes _nested _calling
_answers _arguments _shapes objective _layer_errors _encodings
download/limits download/disk download/urls download/http download/members download/archives download/fetching
download/__init__
rng lending _waiting distributed _devices launching
transforms/geometry transforms/contrast transforms/mixing transforms/augment transforms/spec transforms/presets
transforms/audio/mel transforms/audio/augment transforms/audio/resampling transforms/audio/spec
transforms/audio/__init__ transforms/__init__
plots/_figure plots/_canvas plots/grid plots/lines plots/matrix plots/sound plots/trust plots/__init__
collate/padding collate/structure collate/collating collate/__init__
samplers/order samplers/buckets samplers/epochs samplers/share samplers/__init__ declared wrappers
_loader_arguments _fetching _handout
loader
streams
splits/_values splits/fold splits/cutting splits/folding splits/keys splits/leaks splits/__init__
tokens/_patterns tokens/cleaning tokens/tokenizers tokens/_encoded tokens/vocabulary tokens/pretrained specs/text
specs/builtin specs/__init__
tokens/__init__
reading/cells reading/parsing reading/dates reading/typed reading/targets reading/_bytes reading/policy
reading/_decimals reading/_headers reading/_delimited reading/_excel reading/frames reading/_columnar reading/_text_rows
reading/_plain reading/blocks reading/reader reading/__init__
datasets/base datasets/targets
datasets/letters/packfile datasets/letters/files datasets/letters/packed datasets/letters/notmnist
datasets/letters/glyphs datasets/letters/__init__
datasets/files/decoder datasets/files/listing datasets/files/handover datasets/files/memory datasets/files/journal
datasets/files/settings datasets/files/cache datasets/files/content
datasets/files/fetching datasets/files/dataset datasets/files/folders datasets/files/table
datasets/files/inspecting datasets/files/__init__
datasets/images/decoding datasets/images/settings datasets/images/targets datasets/images/fetching
datasets/images/dataset
datasets/images/folders datasets/images/table datasets/images/inspecting datasets/images/__init__
datasets/audio/mp3 datasets/audio/readers datasets/audio/decoding datasets/audio/settings datasets/audio/fetching
datasets/audio/dataset datasets/audio/folders datasets/audio/table datasets/audio/inspecting
datasets/audio/__init__ datasets/inspecting
datasets/tables/_tally datasets/tables/_facts datasets/tables/_fitting datasets/tables/_problems
datasets/tables/_images datasets/tables/_memory datasets/tables/_encoding
datasets/tables/_straight datasets/tables/_settings
datasets/tables/_pass datasets/tables/_pipeline datasets/tables/_building datasets/tables/_describing
datasets/tables/_index datasets/tables/lanes datasets/tables/_streaming datasets/tables/unlabelled
datasets/tables/dataset
datasets/tables/__init__
datasets/texts/packed datasets/texts/items datasets/texts/opening datasets/texts/rows
datasets/texts/_encoding datasets/texts/_fitting datasets/texts/dataset datasets/texts/__init__
datasets/series datasets/__init__
models/audio models/convnet models/mixed models/text models/linear models/tabular models/ensemble models/trees
models/blend models/encoder models/tfidf
models/__init__ _measures metrics
transfer/_trace transfer/_adapters transfer/heads transfer/freezing transfer/groups transfer/weights transfer/inputs
transfer/backbones transfer/sounds transfer/models transfer/texts
transfer/_cut transfer/features transfer/__init__
artifact/header artifact/budget artifact/inputs artifact/outlining artifact/weights artifact/opening artifact/fusing
artifact/exporting artifact/saving artifact/__init__
runs/every runs/history runs/losses runs/snapshot runs/rows runs/shards runs/state runs/checking runs/judged runs/parts
runs/modelfile runs/checkpointfile runs/store runs/consolidating runs/__init__
callbacks/base callbacks/checkpoint callbacks/back_to_best callbacks/early_stopping callbacks/ema callbacks/frozen
callbacks/gradients callbacks/guards
callbacks/learning_rate callbacks/loggers callbacks/progress callbacks/unfreeze callbacks/__init__
training/sources training/windows
training/meaning training/units training/batches training/counting training/dealing training/outputs
training/summing training/exchanging
training/forward training/optimizing training/steps training/sharding training/rounds
training/closures training/own_steps
training/own_evaluation
training/judging training/loop training/signals training/handed training/identity training/schedules
training/probing training/origin training/resuming training/continuing training/together
training/watching training/summarizing training/reuse_settings training/reuse training/rehearsal training/setup
training/fitting training/trainer training/__init__
inference/outputs inference/batches inference/frames inference/filed inference/images inference/sounds
inference/tables inference/texts inference/inputs
inference/scoring inference/predictor inference/__init__
recipes/standing recipes/charts recipes/tuning recipes/comparing recipes/folders recipes/samples recipes/filed
recipes/fold_scores recipes/kinds recipes/reading
recipes/choices recipes/for_tables recipes/for_texts recipes/for_pictures recipes/choosing recipes/identity
recipes/folding
recipes/held_out recipes/evaluating
recipes/outcome recipes/thresholds recipes/mistakes recipes/reporting
recipes/fitting recipes/writing recipes/training recipes/searching recipes/using
recipes/__init__ sklearn
demo
__init__
serving/limits serving/refusals serving/logs serving/served serving/kinds serving/bodies serving/scheduling
serving/answers serving/asgi serving/measuring serving/protocol serving/describing serving/gate serving/page
serving/http serving/running serving/__init__
cli/_translating cli/_talking cli/_lines cli/_options cli/projects cli/_training cli/_models cli/_serving cli/_data
cli/_cache cli/_checkpoints cli/app cli/__init__ __main__
""".split()  # noqa: SIM905  (a line per room is easier to read and to merge than a list of strings)

# Who may import a module by a name that is not written in the same place: the doors, whose tables are read here as
# imports, and the file that says which extra a missing package belongs to.
MAY_HIDE = {"__init__", "_doors", "_optional"}
IMPORTERS = {"import_module", "__import__", "find_spec", "run_module"}
MODULE = re.compile(r"dlkit(\.\w+)+")

# What a room must not reach, not even through others: training takes any iterable of batches, and so on.
NEVER = {"training/": "datasets/", "callbacks/": "training/", "inference/": "training/", "serving/": "training/"}


@functools.cache
def imports(root: Path, file: str) -> set[str]:
    """The files under `root` that a file names in its imports: at the top, inside functions, under TYPE_CHECKING."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((root / f"{file}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = file.split("/")[: -node.level] if node.level else []
            module = ".".join([*(["dlkit", *above] if node.level else []), *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and is_module(root, node.value):
            names.add(node.value)  # of a door's table, or of import_module: any text that names a module of dlkit
    return {found for name in names if name.split(".")[0] == "dlkit" and (found := resolve(root, name)) != file}


def is_module(root: Path, text: str) -> bool:
    path = text.removeprefix("dlkit.").replace(".", "/")
    return MODULE.fullmatch(text) is not None and any(
        (root / f"{path}{end}").is_file() for end in (".py", "/__init__.py")
    )


def hidden_imports(root: Path, file: str) -> list[str]:
    """The calls in a file that import what no reader of it can see: anything but a constant."""
    nodes = ast.walk(ast.parse((root / f"{file}.py").read_text(encoding="utf-8")))
    taken: list[tuple[ast.expr, ast.expr | None]] = []  # by which function or table, and which module
    for node in nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in IMPORTERS:
            taken.append((node, node.args[0] if node.args else None))
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "sys.modules":
            taken.append((node, node.slice))
    return [ast.unparse(node) for node, module in taken if not isinstance(module, ast.Constant)]


def resolve(root: Path, name: str) -> str:
    """The file that holds a dotted name: the module itself, or the one that the last part is taken from."""
    parts = name.split(".")[1:]
    for path in ("/".join(parts), "/".join(parts[:-1])):
        for candidate in (path, f"{path}/__init__"):
            if path and (root / f"{candidate}.py").is_file():
                return candidate
    return "__init__"


def faults(root: Path, layers: list[str], never: dict[str, str]) -> list[str]:
    """What is wrong, one line each; no line means that there can be no cycle either."""
    files = {str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.py")}
    wrong = [f"{file}: listed in LAYERS but not there" for file in layers if file not in files]
    wrong += [f"{file}: must stand in LAYERS exactly once" for file in files if layers.count(file) != 1]
    known = [file for file in layers if file in files]
    edges = {file: imports(root, file) for file in known}
    wrong += [
        f"{file} imports {other}, which does not stand before it"
        for file in known
        for other in edges[file]
        if other in known and known.index(other) > known.index(file)
    ]
    wrong += [
        f"{file} imports what cannot be seen: {call}"
        for file in known
        if file not in MAY_HIDE
        for call in hidden_imports(root, file)
    ]
    for room, forbidden in never.items():
        seen, queue = set[str](), [file for file in known if file.startswith(room)]
        while queue:
            queue += [other for other in edges.get(queue.pop(), ()) if other not in seen and not seen.add(other)]
        wrong += [f"{room} must not reach {other}" for other in seen if other.startswith(forbidden)]
    return sorted(wrong)


def test_every_import_goes_to_an_earlier_layer() -> None:
    assert faults(SRC, LAYERS, NEVER) == []


UPWARD = [
    "from dlkit.high import thing",
    "from dlkit import high",
    "import dlkit.high as h",
    "from . import high",
    "from .high import thing",
    "def f():\n    from dlkit.high import thing",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dlkit.high import Thing",
    "try:\n    import dlkit.high\nexcept ImportError:\n    pass",
    "import importlib\nimportlib.import_module('dlkit.high')",
    "__all__ = door(__name__, {'thing': 'dlkit.high'})",
    "HOME = 'dlkit.high'",
]


@pytest.mark.parametrize("line", UPWARD)
def test_a_planted_upward_import_is_found(tmp_path: Path, line: str) -> None:
    plant(tmp_path, {"low": line, "high": "", "__init__": ""})
    assert faults(tmp_path, ["low", "high", "__init__"], {}) == ["low imports high, which does not stand before it"]
    assert faults(tmp_path, ["high", "low", "__init__"], {}) == []


@pytest.mark.parametrize(
    "line",
    [
        "import importlib\nimportlib.import_module(HOME)",
        "from importlib import import_module\nimport_module(f'dlkit.{room}')",
        "def f(name):\n    return __import__(name)",
        "import importlib\nimportlib.import_module(name=HOME)",
        "import sys\nversion = sys.modules[__name__.partition('.')[0]].version",
    ],
)
def test_a_planted_import_of_a_variable_is_found(tmp_path: Path, line: str) -> None:
    plant(tmp_path, {"_doors": line, "low": line, "__init__": line})
    (found,) = faults(tmp_path, ["_doors", "low", "__init__"], {})
    assert found.startswith("low imports what cannot be seen: ")


def test_planted_cycles_doors_strangers_and_detours_are_found(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "__init__": "",
            "a": "from dlkit.b import x",
            "b": "from dlkit.a import y",
            "room/__init__": "from dlkit.room.file import z",
            "room/file": "from dlkit.room import z\nfrom ..a import y",
            "stranger": "import dlkit",
        },
    )
    assert faults(tmp_path, ["a", "b", "room/file", "room/__init__", "gone", "__init__"], {"room/": "b"}) == [
        "a imports b, which does not stand before it",
        "gone: listed in LAYERS but not there",
        "room/ must not reach b",
        "room/file imports room/__init__, which does not stand before it",
        "stranger: must stand in LAYERS exactly once",
    ]


def plant(root: Path, files: dict[str, str]) -> None:
    for file, text in files.items():
        (root / file).parent.mkdir(exist_ok=True)
        (root / f"{file}.py").write_text(text, encoding="utf-8")

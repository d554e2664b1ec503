"""Scripts that train, and as many real processes for them as asked for, which talk through gloo."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from warm import Program

TRAIN = '''
import gc, hashlib, json, os, random, resource, signal, sys, time
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from dlkit import Trainer
from dlkit.callbacks import EMA, Callback, Checkpoint, ClipGradients, EarlyStopping, Unfreeze
from dlkit.transfer import freeze

case = json.loads(sys.argv[1])
rank = int(os.environ.get("RANK", 0))
torch.manual_seed(0)
torch.set_num_threads(1)


class Sometimes(nn.Module):
    """Uses one of its parts for some batches only."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 3), nn.Linear(12, 3)

    def forward(self, x):
        x = x.flatten(1)
        return self.first(x) if x.sum() > 0 else self.first(x) + self.second(x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.layer(x.flatten(2).transpose(1, 2)[:, :, :3].repeat(1, 1, 2)[:, :, :4]).mean(1))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)

    def forward(self, x):
        return torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))


class Full(nn.Module):
    """Has no memory for more than two samples, if one of them is a certain one."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 3)

    def forward(self, x):
        if self.training and len(x) > 2 and (x == x_marked).all(dim=(1, 2, 3)).any():
            raise torch.OutOfMemoryError("full")
        return self.layer(x.flatten(1))


MODELS = {
    "full": Full,
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)),
    "cnn": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 3)
    ),
    "transformer": Attention,
    "resnet": lambda: nn.Sequential(nn.Conv2d(3, 6, 1), Block(), Block(), nn.Flatten(), nn.Linear(24, 3)),
    "wide": lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 256), nn.ReLU(), nn.Linear(256, 256), nn.Linear(256, 3)),
    "sometimes": Sometimes,
}
model = MODELS[case.get("model", "mlp")]()
x, y = torch.randn(75, 3, 2, 2), torch.randint(0, 3, (75,))
x_marked = x[40]
if case.get("ignored"):
    y[torch.rand(75) < 0.3] = -100
    y[:12] = -100
if case.get("frozen"):
    freeze(model, case["frozen"], example=x[:2])
weight = torch.tensor([1.0, 2.0, 0.3]) if case.get("weights") else None
optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], 1e-2)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7) if case.get("schedule") else None
callbacks = []
if case.get("clip"):
    callbacks.append(ClipGradients(0.5))
if case.get("ema"):
    callbacks.append(EMA(0.9))
if case.get("stopping"):
    callbacks.append(EarlyStopping(patience=1, min_delta=5.0))
if stages := case.get("stages"):
    callbacks.append(Unfreeze({int(epoch): name for epoch, name in stages.items()}, example=x[:2]))
if folder := case.get("folder"):
    callbacks.append(Checkpoint(folder, every="2 steps"))


class Stop(Callback):
    def on_epoch_start(self, run):
        if case.get("pace"):
            print(f"world {run.world.size}, epoch {run.epoch}", flush=True)

    def on_step_end(self, run):
        time.sleep(case.get("pace", 0))
        if case.get("stop at") == run.step and rank == case.get("stop in", 0):
            os.kill(os.getpid(), 15)
        if case.get("hang at") == run.step and rank == case.get("stop in", 0):
            os.kill(os.getpid(), signal.SIGSTOP)
        if case.get("fail at") == run.step and rank == case.get("stop in", 0):
            raise RuntimeError("broken in one process")


callbacks.append(Stop())
if "no room" in case and rank == case["no room"]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


class Memory(Callback):
    """Bytes that tensors hold, by what there is at that moment."""

    def __init__(self):
        self.gradients = self.step = 0

    def on_gradients(self, run):
        self.gradients = self.held()

    def on_step_end(self, run):
        self.step = self.held()

    def held(self):
        found = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
        locals_ = [each.to_local() if hasattr(each, "to_local") else each for each in found]
        return sum({s.data_ptr(): s.nbytes() for s in (each.untyped_storage() for each in locals_)}.values())


if case.get("memory"):
    memory = Memory()
    callbacks.append(memory)
data = TensorDataset(x, y)
batches = DataLoader(data, 4, shuffle=not case.get("ignored"), num_workers=case.get("workers", 0))
if case.get("list"):
    batches = list(batches)
criterion = nn.CrossEntropyLoss(weight=weight)
step = None
if case.get("own step"):

    def step(run):
        run.optimizer.zero_grad()
        values = {"loss": run.backward(lambda batch: criterion(run.model(batch[0]), batch[1]))}
        run.optimizer.step()
        if case["own step"] == "two losses" and run.step % 2 and torch.rand(()) < 0.9:  # as a GAN's other network
            noise = torch.randn(())  # after the batches of the first loss, and then for each batch
            run.optimizer.zero_grad()
            values["noise"] = run.backward(lambda batch: noise * run.model(torch.randn_like(batch[0])).square().mean())
            run.backward(lambda batch: 0.1 * run.model(batch[0]).square().sum() / 3, count=lambda batch: 3)  # adds
            run.optimizer.step()
        return values

messages = [0]
for name in ("all_to_all_single", "all_reduce", "all_gather_object", "broadcast", "all_gather_into_tensor"):
    def sent(*args, real=getattr(torch.distributed, name), **named):
        messages[0] += 1
        return real(*args, **named)

    setattr(torch.distributed, name, sent)
trainer = Trainer(
    model, criterion, optimizer, metrics=["accuracy"], callbacks=callbacks,
    scheduler=scheduler, reuse_features=case.get("reuse", "stages" not in case), accumulate=case.get("accumulate", 4),
    device="cpu", parallel=case.get("parallel", "replicate"),
    step=step,
)
val = DataLoader(TensorDataset(x[:20], y[:20].clamp(0)), 8)
if case.get("rehearsed"):
    trainer.dry_run(batches, val)
    trainer.overfit(batches, epochs=2)
    trainer.lr_find(batches, steps=3)
history = trainer.fit(batches, val, epochs=case.get("epochs", 2))
if case.get("longer"):
    history = trainer.fit(batches, val, epochs=case["longer"])
digest = hashlib.sha256()
for value in [*model.state_dict().values(), *(v for s in optimizer.state.values() for v in s.values())]:
    digest.update(value.contiguous().numpy().tobytes())
found = {"weights": digest.hexdigest(), "rows": history.rows, "accuracy": trainer.evaluate(list(batches))["loss"]}
if case.get("memory"):
    found["memory"] = memory.gradients, memory.step
print(json.dumps({"messages": messages[0], **found} if case.get("counted") else found))
'''


JUDGE = '''
import hashlib, json, os, sys
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from dlkit import Trainer
from dlkit.metrics import Mean
from dlkit.training import dealing

case = json.loads(sys.argv[1])
torchs = case.get("torchmetrics")
if torchs:  # importing it takes seconds
    from torchmetrics import MeanSquaredError, SumMetric
torch.manual_seed(0)
torch.set_num_threads(1)


class Noisy(nn.Module):
    """Draws for its outputs, also while it is judged."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x) + 0.1 * torch.randn(*x.shape[:-1], 3)


class Order:
    """An own metric that knows nothing of processes, and whose value hangs on the order of the batches."""

    higher_is_better = True

    def reset(self):
        self.value = 0.0

    def update(self, preds, target):
        self.value = 0.7 * self.value + float(preds.sum()) + len(target)

    def compute(self):
        return self.value


class Stream:
    """Batches that come one after the other; nobody knows how many there are."""

    def __iter__(self):
        yield from batches[:7]


if torchs:

    class Total(SumMetric):
        """Twice as large where two processes put their states together that have seen the same."""

        def update(self, preds, target):
            super().update(preds)


x, y = torch.randn(75, 6), torch.randint(0, 3, (75,))
data = TensorDataset(x, y)
batches = list(DataLoader(data, 4))
rough = (lambda o, t: float((o.argmax(1) == t).float().mean()))
metrics = {name: name for name in ("accuracy", "f1", "auroc")}
metrics |= {"order": Order(), "mean": Mean(rough, higher_is_better=True), **({"sum": Total()} if torchs else {})}


def sha(tensors):
    return hashlib.sha256(b"".join(each.contiguous().numpy().tobytes() for each in tensors)).hexdigest()


def trainer(model, loss, metrics):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return Trainer(model, loss, optimizer, metrics=metrics, accumulate=4, device="cpu")


noisy = trainer(Noisy(), nn.CrossEntropyLoss(), metrics)
history = noisy.fit(batches[:8], DataLoader(data, 4), epochs=2, validate_every="2 steps")
results = {"rows": history.rows, "weights": sha(noisy.model.state_dict().values())}
results["evaluated"] = [noisy.evaluate(each) for each in (batches[:1], batches[:2], batches, Stream())]
results["tested"] = noisy.test(DataLoader(data, 10))
results["predicted"] = [sha([noisy.predict(DataLoader(x, 4))]), sha([noisy.predict(batches[:1])])]
results["ragged"] = sha(noisy.predict([x[:4, None], x[4:8, None].repeat(1, 2, 1)], has_targets=False))
number = trainer(nn.Linear(6, 1), lambda o, t: (o - t).square().mean(), ["mae", "rmse", "r2"])
wide = TensorDataset(x, 3 * x[:, :1] + 1)
results["numbers"] = number.evaluate(DataLoader(wide, 4))
if torchs:
    dealing.LARGE = 10
    results["own objects"] = noisy.evaluate(batches[:9])
    summed = trainer(nn.Linear(6, 1), nn.MSELoss(), {"mse": MeanSquaredError()})
    results["close"] = summed.evaluate(DataLoader(wide, 4))["mse"]
print(json.dumps(results), flush=True)
if torchs:
    number.evaluate([(x[:4], x[:4, :1]), (x[:4, None], x[:4, None, :1])])
'''


SOURCES = """
import csv, hashlib, json, os, sys
import torch
from torch import nn
from torch.utils.data import DataLoader as Stock, IterableDataset, TensorDataset
import dlkit
from dlkit import DataLoader, Trainer
from dlkit.callbacks import Checkpoint

case = json.loads(sys.argv[1])
rank, folder, kind = int(os.environ.get("RANK", 0)), case["folder"], case["kind"]
torch.manual_seed(0)
torch.set_num_threads(1)
passed = [0]
steps = None


class Counting(nn.Module):
    def forward(self, x):
        passed[0] += 0 if x.is_meta else len(x)
        return x


class Numbers(IterableDataset):
    def __iter__(self):
        first = rank if case.get("split") else 0
        yield from ((x[n], y[n]) for n in range(first, case.get("samples", {}).get(str(rank), 75)))


class Shards(IterableDataset):
    # files of uneven length, of which each share has some

    def __init__(self, names=range(7)):
        self.names = names

    def share(self, place, of):
        return Shards(self.names[place::of])

    def __iter__(self):
        for name in self.names:
            read.add(name)
            rows = slice(name * name, (name + 1) * (name + 1))
            yield from zip(x[rows] + 0.1 * torch.randn(()), y[rows])


read = set()
if kind == "rows":
    from dlkit.datasets import CSVDataset
    from dlkit.models import TabularMLP
    from dlkit import reading
    import dlkit.reading.blocks

    reading.blocks.BLOCK_BYTES = 200
    data = CSVDataset(f"{folder}/rows.csv", target="y", streaming=True)
    model, loss = TabularMLP(data.spec), nn.CrossEntropyLoss()
elif kind == "texts":
    from dlkit.datasets import TextDataset
    from dlkit.models import TextClassifier

    texts = [" ".join(["good", "bad", "so"][number % 3] for number in range(place % 17 + 1)) for place in range(75)]
    data = TextDataset(texts, target=[place % 2 for place in range(75)], min_freq=1, tokenizer="words")
    model, loss = TextClassifier(len(data.vocabulary), 2, encoder="gru", width=8), nn.CrossEntropyLoss()
elif kind in ("features", "frozen"):
    from dlkit.training import ReuseFeatures
    from dlkit.transfer import freeze

    class Images(TensorDataset):
        draws_seeded, identity = True, "images"

        def __getitem__(self, place):
            image, target = super().__getitem__(place)
            return (image.flip(-1) if torch.rand(()) < 0.5 else image) + 0.1 * torch.randn(()), target

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), Counting())
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(self.body(x).mean((2, 3)))

    images = torch.randn(75, 3, 5, 5), torch.arange(75) % 3
    data = (Images if kind == "features" else TensorDataset)(*images)
    model, loss = freeze(Net()), nn.CrossEntropyLoss()
else:
    x, y = torch.randn(75, 6), torch.randint(0, 3, (75,))
    model, loss = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Linear(8, 3)), nn.CrossEntropyLoss()
    steps = 3 if kind == "windows" else None
if kind in ("stream", "windows"):
    train = val = Stock(Numbers(), 4)
elif kind == "shares":
    train, val = Stock(Shards(), 3), [(x[:9], y[:9])]
else:
    seen = TensorDataset(*data.tensors) if kind == "features" else data
    train, val = DataLoader(data, 4, shuffle=True), DataLoader(seen, 8)
optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], 1e-2)
reuse = case.get("reuse", True) if kind != "features" else ReuseFeatures(views=3, cache=case.get("cache"))
parallel = case.get("parallel", "replicate")
settings = {"accumulate": 4, "device": "cpu", "reuse_features": reuse, "parallel": parallel}
callbacks = [Checkpoint(case["run"], restore_best=False)] if "run" in case else []
trainer = Trainer(model, loss, optimizer, metrics=["accuracy"], callbacks=callbacks, **settings)
history = trainer.fit(train, val, epochs=2, steps_per_epoch=steps)
digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in model.state_dict().values())).hexdigest()
found = {"weights": digest, "rows": history.rows, "passed": passed[0], "read": sorted(read)}
if kind == "rows":
    found["file"] = hashlib.sha256(trainer.save(f"{folder}/{rank}.safetensors").read_bytes()).hexdigest()
print(json.dumps(found))
"""


REFUSED = """
import functools, json, os, sys
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from dlkit import Trainer
from dlkit.callbacks import Checkpoint
from dlkit.errors import DlkitError

torch.set_num_threads(1)
rank, folder = int(os.environ["RANK"]), json.loads(sys.argv[1])["folder"]
x, y = torch.randn(75, 3, generator=torch.Generator().manual_seed(1)), torch.arange(75) % 3


def local(run):
    seen = []
    run.backward(lambda batch: seen.append(run.model(batch[0]).square().mean()) or seen[-1])
    return seen[0]


def uneven(run):
    often = 1 if rank and run.step == 1 else 2
    losses = [run.backward(lambda batch: run.model(batch[0]).square().mean()) for _ in range(often)]
    return losses[0]


def linear(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(dropout), nn.Linear(4, 3))


def batches(x=x, y=y, **settings):
    return DataLoader(TensorDataset(x, y), 4, **settings)


def refusal(make=linear, data=batches(), loss=nn.functional.cross_entropy, threads=1, version=None, rate=0.1, **given):
    model = make()
    own = torch.optim.SGD(model.parameters(), rate)
    torch.set_num_threads(threads)
    true, torch.__version__ = torch.__version__, version or torch.__version__
    try:
        Trainer(model, loss, own, device="cpu", progress=False, **{"accumulate": 2, **given}).fit(data)
    except DlkitError as error:
        return str(error)
    finally:
        torch.set_num_threads(1)
        torch.__version__ = true


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(9, 3, sparse=True), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.words((x > 0).long()).mean(1))


exec(f"def criterion(output, target): return nn.functional.cross_entropy(output, target) * {rank + 1}")
distributed.init_process_group("gloo")  # so that it outlives the errors
shared = DistributedSampler(TensorDataset(x, y), num_replicas=2, rank=rank)
found = {
    "fewer batches than processes": refusal(accumulate=1),
    "other seeds": refusal(seed=7 * rank),
    "shared out": refusal(data=batches(sampler=shared)),
    "ddp": refusal(lambda: nn.parallel.DistributedDataParallel(linear())),
    "fsdp": refusal(lambda: fully_shard(linear())),
    "sparse": refusal(Sparse),
    "code": refusal(loss=criterion),
    "folder": refusal(callbacks=[Checkpoint(f"{folder}/run{rank}")]),
    "fewer samples": refusal(data=batches(x[: 75 - 15 * rank], y[: 75 - 15 * rank])),
    "other samples": refusal(data=batches(x + rank, shuffle=True)),
    "weights": refusal(functools.partial(linear, rank)),
    "modules": refusal(functools.partial(linear, dropout=0.1 * rank)),
    "threads": refusal(threads=1 + rank),
    "torch": refusal(version="2.9.0" if rank else None),
    "optimizer": refusal(rate=0.1 + rank),
    "own values": refusal(step=local),
    "calls": refusal(step=uneven),
}
print(json.dumps(found), flush=True)
distributed.destroy_process_group()
"""


def free_port() -> int:
    """A port of the loopback address that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(size: int, case: dict[str, object], folder: Path, text: str = TRAIN) -> list[Program]:
    """Start the script in as many processes.

    Args:
        size: How many.
        case: What to train.
        folder: Where the script is put.
        text: The script's.
    """
    script = folder / "train.py"
    script.write_text(text, encoding="utf-8")
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    own = [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)] if size > 1 else [{}]
    return [Program([script, json.dumps(case)], env={**os.environ, "OMP_NUM_THREADS": "1", **each}) for each in own]


def ends(programs: list[Program], timeout: float = 120.0) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of each.

    Args:
        programs: What was started.
        timeout: Seconds for each.
    """
    texts = [program.communicate(timeout=timeout) for program in programs]
    return [(program.returncode or 0, *text) for program, text in zip(programs, texts, strict=True)]


def results(size: int, case: dict[str, object], folder: Path, text: str = TRAIN) -> list[dict[str, object]]:
    """What every process has printed last.

    Args:
        size: How many.
        case: What to train.
        folder: Where the script is put.
        text: The script's.
    """
    found = ends(start(size, case, folder, text))
    assert all(code == 0 for code, _, _ in found), found
    return [json.loads(out.splitlines()[-1]) for _, out, _ in found]

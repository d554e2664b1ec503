"""`parallel="shard"`: each process keeps a share of parameters, gradients and optimizer state (torch's FSDP2).

The batches of a step are assigned in rounds, of which each process works on one batch at a time, as the forward and the
backward pass bring parameters together among all. Gradients are not summed by a backend's reduce-scatter: each process
gets its rows of every batch's gradient and adds them up in the tree of `dlkit.training.summing`, so that the bits are
those of one process.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import Optimizer

from dlkit.callbacks.base import Callback
from dlkit.distributed import World
from dlkit.errors import ArgumentError, TrainingError
from dlkit.runs.shards import Shards
from dlkit.runs.state import Run
from dlkit.training.batches import is_channels_last
from dlkit.training.summing import Tree

__all__ = ["Sharding", "check_shardable", "sharded", "units", "unused"]

#: Those of torch whose step computes each number from what belongs to that number alone.
_BY_NUMBERS = ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD"]


def check_shardable(
    run: Run, callbacks: Sequence[Callback], *, precision: str, called: nn.Module, step: Any, views: int | None
) -> None:
    """Refuse what `parallel="shard"` cannot do with the same numbers as `"replicate"`.

    Args:
        run: With model and optimizers.
        callbacks: All of them.
        precision: As given to the Trainer.
        called: What is called in the model's place.
        step: As given to the Trainer.
        views: Of the features that are to be stored.
    """
    model, kinds = run.model, [getattr(torch.optim, name) for name in _BY_NUMBERS]
    parameters = list(model.parameters())
    faults = {
        "a model that is compiled or wrapped": called is not model,
        'precision="fp16", whose scaler must see all gradients ("bf16" works)': precision == "fp16",
        "a custom step, which may call parts of the model by themselves": step is not None,
        f"stored views on {run.device.type} (there FSDP moves a batch before it is seen that nothing is in it)": views
        is not None
        and run.device.type != "cpu",
        "a model in channels-last order": is_channels_last(model),
        "a callback that needs the whole model in training": any(each.needs_whole_model for each in callbacks),
        "a parameter without dimensions (make it one of shape [1])": any(each.dim() == 0 for each in parameters),
        f"torch {torch.__version__}, which adds gradients in its own order only": not hasattr(
            _fsdp()[1], "set_custom_reduce_scatter"
        ),
    } | {
        f"the optimizer {type(each).__name__}, which looks at whole tensors (not so {', '.join(_BY_NUMBERS)})": True
        for each in run.optimizers.values()
        if type(each) not in kinds
    }
    if found := [what for what, there in faults.items() if there]:
        raise ArgumentError(f'parallel="shard" cannot be combined with {"; ".join(found)}; use parallel="replicate"')


def _fsdp() -> tuple[Any, Any]:
    from torch.distributed.fsdp import FSDPModule, fully_shard

    return fully_shard, FSDPModule


def units(model: nn.Module) -> list[nn.Module]:
    """The parts of a model whose parameters are brought together at a time; the rest is brought together with it all.

    These are the elements of each `nn.ModuleList` or `nn.Sequential` that has several of one class, with parameters
    that no other part shares: the blocks of a transformer or a ResNet, the layers of a plain network.

    Args:
        model: Any module.

    >>> len(units(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))))
    2
    """
    owners: dict[int, int] = {}
    for part in model.modules():
        for parameter in part._parameters.values():
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return list(_units(model, owners))


def _units(module: nn.Module, owners: dict[int, int]) -> Iterator[nn.Module]:
    children = list(module.children())
    kinds = [type(child) for child in children if any(True for _ in child.parameters())]
    repeats = isinstance(module, nn.ModuleList | nn.Sequential)
    for child in children:
        own = list(child.parameters())
        alone = own and all(owners[id(parameter)] == 1 for parameter in own)
        if repeats and alone and kinds.count(type(child)) > 1:
            yield child
        else:
            yield from _units(child, owners)


class _Reduction:
    """In the place of FSDP's reduce-scatter: keeps this process's rows of every gradient, and gives their sum.

    Args:
        world: The processes.
    """

    def __init__(self, world: World) -> None:
        self._world, self._tree = world, Tree()
        self.places: list[int | None] = []
        self.last = False

    def allocate(self, size: Sequence[int | torch.SymInt], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, **settings: Any) -> None:
        del settings
        rows = self._world.deal(input_tensor.view(1, -1), [1] * self._world.size)
        for place, row in zip(self.places, rows, strict=True):
            if place is not None:
                if self._tree.nodes and self._tree.nodes[0][2][0].shape != row.shape:  # type: ignore[union-attr]
                    raise unused()
                self._tree.add(place, [row])
        if self.last:
            (total,) = self._tree.total()
            self._tree = Tree()
            output_tensor.copy_(total)  # type: ignore[arg-type]

    @property
    def waits(self) -> bool:
        """Whether there are gradients that nothing was done with."""
        return bool(self._tree.nodes)

    def restart(self) -> None:
        """Forget the gradients of a step."""
        self._tree = Tree()


def unused() -> TrainingError:
    """What is said where batches use other parts of the model."""
    return TrainingError(
        'with parallel="shard" every batch must use all parts of the model, and some batches of this step use others; '
        'parallel="replicate" takes such models'
    )


@dataclasses.dataclass(frozen=True)
class _Before:
    """What a module was before it was sharded."""

    kind: type
    names: frozenset[str]
    parameters: dict[str, nn.Parameter | None]


class Sharding:
    """Shards modules in place, with their optimizers, and makes them whole again.

    Args:
        run: Whose optimizers work on the shares meanwhile.
        shards: Knows the shares.
    """

    def __init__(self, run: Run, shards: Shards) -> None:
        self.run, self.shards, self.reductions = run, shards, list[_Reduction]()
        self._before: dict[nn.Module, _Before] = {}
        self._originals: list[tuple[nn.Parameter, Tensor, nn.Parameter]] = []

    def begin(self) -> None:
        """Leave each process its share of the model, its average and the optimizers' state."""
        mesh = dist.device_mesh.init_device_mesh(self.run.device.type, (self.run.world.size,))
        for module in {id(module): module for module in (self.run.model, self.run.eval_model)}.values():
            self.shard(module, mesh)
        self.hand_over(list(self.run.optimizers.values()))
        self.run.shards = self.shards

    def end(self) -> None:
        """Make everything whole again in every process; all call this."""
        self.run.shards = None
        self.take_back(list(self.run.optimizers.values()))
        self.make_whole()

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """A block in which everything is whole, and may be frozen or thawed; all processes enter it."""
        self.end()
        yield
        self.begin()

    def shard(self, module: nn.Module, mesh: Any) -> None:
        """Leave each process its rows of the parameters; the module stays the same object.

        Args:
            module: The model, or its average.
            mesh: The processes as a device mesh of one dimension.
        """
        fully_shard, _ = _fsdp()
        parts = list(module.modules())
        self._before |= {part: _Before(type(part), frozenset(vars(part)), dict(part._parameters)) for part in parts}
        for unit in [*units(module), module]:
            fully_shard(unit, mesh=mesh, reshard_after_forward=True)
            reduction = _Reduction(self.shards.world)
            unit.set_custom_reduce_scatter(reduction)  # type: ignore[operator]
            self.reductions.append(reduction)
        seen: set[int] = set()
        for part in parts:
            for name, original in self._before[part].parameters.items():
                if original is not None and id(original) not in seen:
                    seen.add(id(original))
                    self._keep(original, part._parameters[name])

    def _keep(self, original: nn.Parameter, sharded: Any) -> None:
        share = nn.Parameter(sharded.to_local().detach(), requires_grad=original.requires_grad)
        self.shards.add(share, original.shape)
        self._originals.append((original, sharded, share))
        original.data = original.data.new_empty(0)

    def hand_over(self, optimizers: Sequence[Optimizer]) -> None:
        """Let optimizers work on the shares, as they would on the parameters.

        Args:
            optimizers: Of the run.
        """
        _exchange(optimizers, {id(original): share for original, _, share in self._originals}, self._cut)

    def _cut(self, old: Tensor, new: Tensor, value: Tensor) -> Tensor:
        size = next(sharded.shape for _, sharded, share in self._originals if share is new)
        return self.shards.cut(value) if value.shape == size else value

    def take_back(self, optimizers: Sequence[Optimizer]) -> None:
        """Let optimizers work on the parameters again; all processes call this.

        Args:
            optimizers: Of the run.
        """
        _exchange(optimizers, {id(share): original for original, _, share in self._originals}, self._joined)

    def _joined(self, share: Tensor, new: Tensor, value: Tensor) -> Tensor:
        return self.shards.whole(share, value) if value.shape == share.shape else value

    def make_whole(self) -> None:
        """Put all parameters together in every process, and make the modules what they were; all call this."""
        for part in self._before:
            if isinstance(part, _fsdp()[1]):
                part.reshard()
        for original, _, share in self._originals:
            original.data = self.shards.whole(share, share.detach())
        from torch.distributed import _composable_state

        known = getattr(_composable_state, "_module_state_mapping", {})
        for part, before in self._before.items():
            known.pop(part, None)  # else a further fit could not shard it again
            part.__class__ = before.kind
            part._parameters.update(before.parameters)
            for name in set(vars(part)) - before.names:
                del vars(part)[name]
            for name, hooks in vars(part).items():
                if "hooks" in name and isinstance(hooks, dict):
                    for key in [key for key, hook in hooks.items() if _of_torch(hook)]:
                        del hooks[key]
        for held in (self._originals, self._before, self.reductions):
            held.clear()
        self.shards.forget()

    def holds(self, parameter: Tensor) -> bool:
        """Whether a parameter is a share, or what FSDP makes of one.

        Args:
            parameter: Any.
        """
        return hasattr(parameter, "to_local") or any(parameter is share for _, _, share in self._originals)

    def gradients(self) -> Iterator[tuple[Tensor, nn.Parameter]]:
        """The sharded parameters whose gradient there is, with the shares that optimizers know."""
        return ((sharded, share) for _, sharded, share in self._originals if sharded.grad is not None)


def _exchange(optimizers: Sequence[Optimizer], others: dict[int, nn.Parameter], change: Any) -> None:
    """Let optimizers work on other parameters, with what they remember of them, in the order in which they do."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["params"][:] = [others.get(id(parameter), parameter) for parameter in group["params"]]
        remembered = list(optimizer.state.items())
        optimizer.state.clear()
        for old, held in remembered:
            new = others.get(id(old), old)
            optimizer.state[new] = {
                key: change(old, new, value) if new is not old and isinstance(value, Tensor) and value.dim() else value
                for key, value in held.items()
            }


def _of_torch(hook: Any) -> bool:
    owner = getattr(hook, "__self__", None)
    owner = getattr(hook, "hook", hook) if owner is None else type(owner)
    return str(getattr(owner, "__module__", "")).startswith("torch.distributed")


@contextlib.contextmanager
def sharded(run: Run) -> Iterator[Sharding | None]:
    """A block in which each process holds a share of the model, its average and the optimizers' state.

    At its end everything is whole again in every process; after an error it cannot be, and nothing is saved.

    Args:
        run: Of several processes that take turns; for others nothing changes.
    """
    if run.world.size == 1 or not run.world.turns:
        yield None
        return
    sharding, capture = Sharding(run, Shards(run.world)), run.capture
    sharding.begin()
    run.capture, run.whole = lambda: sharding.shards.in_rows(capture(), run.optimizers), sharding.whole
    try:
        yield sharding
    except BaseException as error:
        run.write_files = run.keep_state = False
        run.eval_model = run.model
        error.add_note("the processes hold shares of the model, which cannot be put together again: make a new one")
        raise
    finally:
        run.shards, run.capture, run.whole = None, capture, contextlib.nullcontext
    sharding.end()

"""Randomness as a pure function: every stream starts from (seed, purpose, epoch, number), never from what ran before.

`derive` mixes a path of integers into a 64-bit seed (the finaliser of SplitMix64: Steele, Lea, Flood 2014, "Fast
Splittable Pseudorandom Number Generators"), `set_streams` starts `random`, `numpy.random` and torch's CPU generator
from one such seed in about 6 µs, and `reseed` does the same for generators that an object owns itself. `twin` notices
who draws from `random`.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

__all__ = [
    "Twin",
    "derive",
    "find_generators",
    "isolated",
    "load_state_dict",
    "put_back",
    "reseed",
    "seed_everything",
    "set_streams",
    "start_torch",
    "state_dict",
    "state_of",
    "twin",
]

_MASK = (1 << 64) - 1
_CPU = torch.default_generator
_AFTER = 0x9E3779B97F4A7C15  # where the twin starts: any state that nobody seeds `random` with
_PROBE = 128  # bits: more than two different streams will ever agree in

# What a stream is for. Part of the seed, so that order, fetching and the model's own draws never share numbers.
# The numbers stay as they are: others would give other results.
ORDER, FETCH, STEP, EVALUATE, SPLIT = range(1, 6)
VIEWS, MIXTURE, MODEL = 11, 12, 1001

Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


def derive(seed: int, *path: int) -> int:
    """Mix `seed` and a path of integers into one 64-bit seed; different paths give unrelated streams.

    Args:
        seed: Any integer, also a negative or a very large one.
        path: For example purpose, epoch and batch number.

    >>> derive(0, 1, 2) == derive(0, 1, 2), derive(0, 1, 2) == derive(0, 2, 1)
    (True, False)
    """
    mixed = seed & _MASK
    for step in path:
        mixed = (mixed + 0x9E3779B97F4A7C15 * ((step & _MASK) + 1)) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        mixed ^= mixed >> 31
    return mixed


def set_streams(seed: int, *, python: bool = True) -> None:
    """Start `random`, `numpy.random` and torch's CPU generator from `seed` (64 bits), leaving CUDA generators alone.

    `torch.manual_seed` would cost 116 µs, because it visits every kind of device.

    Args:
        seed: 64 bits, usually from `derive`.
        python: Start `random`, too; that alone takes twice as long as the other two.

    >>> set_streams(7); first = torch.rand(1); set_streams(7); bool(first == torch.rand(1))
    True
    """
    if python:
        random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    _CPU.manual_seed(seed)


def start_torch(seed: int, device: torch.device) -> None:
    """Start torch's streams from `seed`: that of the CPU, and those of all GPUs where the device is one.

    Args:
        seed: 64 bits, usually from `derive`.
        device: Where the model is.

    >>> start_torch(7, torch.device("cpu")); first = torch.rand(1); set_streams(7); bool(first == torch.rand(1))
    True
    """
    _CPU.manual_seed(seed)
    if device.type == "cuda":
        for generator in torch.cuda.default_generators:
            generator.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


class Twin:
    """A stream that draws beside `random`, to notice when somebody else has drawn from it.

    >>> twin = Twin(); twin.catch_up(); twin.put_back()
    False
    >>> first = random.random(); twin.catch_up(); twin.put_back()
    False
    >>> twin.catch_up(); second = random.random(); twin.put_back()
    True
    """

    def __init__(self) -> None:
        self._stream = random.Random(_AFTER)
        self._draw = self._stream.getrandbits

    def catch_up(self) -> None:
        """Let both start from a number of `random`'s own if somebody has drawn from it since the last call here."""
        if self._differs():
            seed = random.getrandbits(64)
            random.seed(seed)
            self._stream.seed(seed)

    def step(self) -> None:
        """Draw from both as `put_back` does."""
        self._differs()

    def put_back(self) -> bool:
        """Whether somebody has drawn from `random` since the last call here; it is then as if nobody had."""
        if moved := self._differs():
            random.setstate(self._stream.getstate())
        return moved

    @property
    def agrees(self) -> bool:
        """Whether both are in one state."""
        return self._stream.getstate() == random.getstate()

    def follow(self, agrees: bool) -> None:
        """After `random` was given another state: be in one state with it, or not, as before.

        Args:
            agrees: What `agrees` said where that state was read.
        """
        if agrees:
            self._stream.setstate(random.getstate())
        elif self.agrees:
            self._stream.seed(self._stream.getrandbits(64))

    def _differs(self) -> bool:
        return random.getrandbits(_PROBE) != self._draw(_PROBE)


twin = Twin()


def seed_everything(seed: int = 0) -> int:
    """Seed `random`, `numpy.random` and torch on every device, and return the seed.

    Call it before you build a model: the Trainer seeds everything that happens inside `fit`, but it cannot know from
    which state your model's first weights were drawn.

    Args:
        seed: Any integer.

    >>> seed_everything(0)
    0
    """
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.manual_seed(seed & _MASK)
    return seed


def state_dict() -> dict[str, Any]:
    """The state of `random`, `numpy.random`, torch's CPU generator and all CUDA generators, as plain data.

    Safe for `torch.load(..., weights_only=True)`: only tensors, numbers, strings, lists and None.

    >>> state = state_dict(); first = random.random(); load_state_dict(state); first == random.random()
    True
    """
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)
    return {
        "python": {
            "version": version,
            "words": torch.tensor(words, dtype=torch.int64),
            "gauss": gauss,
            "twin": twin.agrees,
        },
        "numpy": {
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": _CPU.get_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def load_state_dict(state: Mapping[str, Any]) -> None:
    """Put every generator back to where `state_dict` saw it; CUDA states beyond this machine's devices are left out.

    Args:
        state: What `state_dict` returned.

    >>> load_state_dict(state_dict())
    """
    python, numpy_state = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    twin.follow(python.get("twin", False))
    key = numpy_state["key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, numpy_state["pos"], numpy_state["has_gauss"], numpy_state["gauss"]))
    _CPU.set_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        for device, cuda_state in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(cuda_state, device)


@contextlib.contextmanager
def isolated(seed: int, own: Sequence[Generator] = ()) -> Iterator[None]:
    """Run a block whose draws start from `seed`, and leave every stream as it was.

    Args:
        seed: 64 bits, usually from `derive`.
        own: Generators that some object owns itself, see `find_generators`; they are treated the same.

    >>> before = random.getstate()
    >>> with isolated(3):
    ...     _ = random.random()
    >>> random.getstate() == before
    True
    """
    python, numpy_state, cpu, agrees = random.getstate(), np.random.get_state(), _CPU.get_state(), twin.agrees
    states = [state_of(generator) for generator in own]
    set_streams(seed)
    reseed(own, seed)
    try:
        yield
    finally:
        random.setstate(python)
        twin.follow(agrees)
        np.random.set_state(numpy_state)
        _CPU.set_state(cpu)
        for generator, state in zip(own, states, strict=True):
            put_back(generator, state)


def state_of(generator: Generator) -> Any:
    """The state of a generator of any library.

    Args:
        generator: One that some object owns itself.
    """
    if isinstance(generator, random.Random):
        return generator.getstate()
    return generator.bit_generator.state if isinstance(generator, np.random.Generator) else generator.get_state()


def put_back(generator: Generator, state: Any) -> None:
    """Give a generator the `state` that `state_of` saw.

    Args:
        generator: The same one.
        state: What `state_of` returned.

    >>> own = random.Random(1); state = state_of(own); first = own.random(); put_back(own, state); first == own.random()
    True
    """
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)


def find_generators(*owners: object, depth: int = 4) -> list[Generator]:
    """The random generators that objects own themselves, in a stable order: in attributes, lists, tuples and dicts.

    A sampler with `self.rng = random.Random(0)` or a dataset with `self.rng = numpy.random.default_rng()` draws from
    a stream that the global seeds do not reach; the loader reseeds those too.

    Args:
        owners: The objects to look into.
        depth: How many attributes deep to look.

    >>> class Sampler:
    ...     def __init__(self): self.rng = random.Random(0)
    >>> len(find_generators(Sampler()))
    1
    """
    found: list[Generator] = []
    seen: set[int] = set()

    def visit(value: object, left: int) -> None:
        if id(value) in seen or len(seen) > 10_000:  # a search, not a walk through somebody's whole data
            return
        seen.add(id(value))
        if isinstance(value, Generator):
            found.append(value)
        elif left > 0:
            for child in _children(value):
                visit(child, left - 1)

    for owner in owners:
        visit(owner, depth)
    return [generator for generator in found if generator is not _CPU]


def _children(value: object) -> Iterable[object]:
    if isinstance(value, torch.Tensor | np.ndarray | str | bytes | int | float | type | torch.nn.Module):
        return ()
    if isinstance(value, Mapping):
        return list(value.values())[:100]
    if isinstance(value, list | tuple):
        return value[:100]  # a list of transforms is short; a list of a million samples is not searched
    return list(vars(value).values()) if hasattr(value, "__dict__") else ()


def reseed(generators: Iterable[Generator], seed: int) -> None:
    """Start generators that objects own from `seed`; each gets its own stream by its place in the order.

    Args:
        generators: What `find_generators` found.
        seed: 64 bits, usually from `derive`.

    >>> own = random.Random(); reseed([own], 5); first = own.random(); reseed([own], 5); first == own.random()
    True
    """
    for place, generator in enumerate(generators):
        own = derive(seed, place)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(own)
        elif isinstance(generator, random.Random):
            generator.seed(own)
        elif isinstance(generator, np.random.RandomState):
            generator.seed(own & 0xFFFFFFFF)
        else:
            bits = generator.bit_generator
            bits.state = type(bits)(own).state

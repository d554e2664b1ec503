"""Training on stored features: the frozen first part of a model runs once per sample, not once per epoch."""

from __future__ import annotations

import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlkit import rng
from dlkit._calling import call, rows_of, split
from dlkit._fetching import LEFT_OUT, Mine, dealt
from dlkit._language import Message
from dlkit._modes import in_mode
from dlkit._nested import map_leaves, tensors_in
from dlkit._progress import Bar
from dlkit.errors import ArgumentError, DataError, DlkitError
from dlkit.loader import DataLoader
from dlkit.runs.state import Run
from dlkit.storage.caches import make_room
from dlkit.storage.files import folder_for, home, home_of
from dlkit.training.batches import to_device
from dlkit.training.dealing import InTurns, to_send
from dlkit.training.forward import Forward
from dlkit.training.reuse_settings import ReuseFeatures
from dlkit.training.sources import Source, Wrapping, present
from dlkit.training.watching import Fetched, in_order
from dlkit.transfer._cut import Cut, SecondHalf, check_halves, check_training, find_cut, in_best_layout
from dlkit.transfer.features import Features, FeatureStore, features_key, identity_of
from dlkit.transfer.freezing import frozen_modules, is_frozen

__all__ = ["Reuse"]


class Reuse:
    """Decides for each stage of a fit whether features are stored, and gives the batches of both kinds.

    Args:
        run: The run.
        forward: Model and loss.
        settings: What the user wants.
    """

    def __init__(self, run: Run, forward: Forward, settings: ReuseFeatures) -> None:
        self.run, self.forward, self.settings = run, forward, settings
        self._stage: tuple[str, ...] | None = None
        self._cut: Cut | None = None
        self._example: Any = None  # two samples
        self._halves: dict[int, tuple[Any, SecondHalf]] = {}
        self._sources: list[ReusingSource] = []
        run.half = self.half

    def wrapped(self, source: Source, *, training: bool) -> Source:
        """The same source, whose batches are stored features while that is exact.

        Args:
            source: The batches.
            training: Training data, as opposed to validation data.
        """
        loader = getattr(source, "loader", None)
        if not isinstance(loader, DataLoader) or loader.batch_size is None:
            return source
        wrapped = ReusingSource(self, source, loader, training=training)
        self._sources.append(wrapped)
        return wrapped

    def stage(self) -> Cut | None:
        """Where the model is cut now; None while it cannot be. Follows what is frozen."""
        frozen = tuple(frozen_modules(self.run.model)) if is_frozen(self.run.model) else ()
        if frozen != self._stage:
            self._stage, self._cut = frozen, None
            self._halves.clear()
            for source in self._sources:
                source.forget()
            if frozen and self._sources:
                with self.run.whole():  # both halves are found, and the first is run, on a model without shares
                    self._begin()
        return self._cut

    def _begin(self) -> None:
        samples = [source.first_inputs() for source in self._sources]
        sample = next((each for each in samples if each is not None), None)
        if sample is None:
            return
        try:
            self._example = map_leaves(sample, lambda leaf: leaf[:2])
            self._cut = in_best_layout(find_cut(self.run.model, sample), to_device(self._example, self.run.device))
            self._verify()
        except ArgumentError as error:
            self._cut = None
            self.run.say(Message("features are not stored: {reason}", reason=error))
            return
        began = time.monotonic()
        stored = [source for source in self._sources if source.store_features()]
        if stored and self.run.world.turns:  # while a model is in shares, its forward cannot be followed
            self.half(self.run.eval_model)
        self._tell(stored, time.monotonic() - began)

    def _verify(self) -> None:
        """The halves must give what the model gives, on real data."""
        assert self._cut is not None
        images = to_device(self._example, self.run.device)
        with in_mode(self.run.model, training=False), torch.no_grad():
            whole = call(self.run.model, images)
            features = self._cut.features(images)
            try:
                half = self.half(self.run.model)(features)
            except (RuntimeError, NotImplementedError, StopIteration) as error:
                reason = str(error).splitlines()[0]
                raise ArgumentError(f"the model cannot be cut at {self._cut.boundary!r}: {reason}") from error
        check_halves(self._cut, images, whole, half)
        with in_mode(self.run.model, training=True):
            check_training(self._cut, images, features, self.half(self.run.model))

    def _tell(self, stored: list[ReusingSource], seconds: float) -> None:
        if not stored:
            return
        once = sum(source.store.samples * source.store.views for source in stored if source.store)
        epochs = self.run.epochs - self.run.epoch
        saved = sum(source.store.samples for source in stored if source.store) * epochs - once
        megabytes = sum(source.store.nbytes for source in stored if source.store) / 1e6
        how = Message("found in the cache and checked")
        if any(source.computed for source in stored):
            how = Message("computed in {seconds:.1f} s", seconds=seconds)
        self.run.say(
            Message(
                "the frozen backbone runs once over {samples}; {saved:,} forward passes saved in {epochs}; "
                "{megabytes:.1f} MB, {how}",
                samples=_joined([source.described() for source in stored]),
                saved=max(0, saved),
                epochs=Message("1 epoch") if epochs == 1 else Message("{count} epochs", count=epochs),
                megabytes=megabytes,
                how=how,
            )
        )

    def features(self, batch: Any) -> tuple[Tensor, Any]:
        """The first half of the model on a batch, in eval mode, on the CPU.

        Args:
            batch: As the loader gave it.
        """
        assert self._cut is not None
        inputs, target = split(to_device(batch, self.run.device))
        autocast = torch.autocast(self.run.device.type, self.forward.dtype, enabled=self.forward.dtype is not None)
        with autocast:
            return self._cut.features(inputs).cpu(), None if target is None else to_device(target, torch.device("cpu"))

    def half(self, model: nn.Module) -> Callable[[Tensor], Any]:
        """The second half of the model, or of a copy of it.

        Args:
            model: The module that the step or the validation wants to call.
        """
        own = self.run.eval_model if model is self.run.eval_model else self.run.model
        known = self._halves.get(id(own))
        if known is None or known[0]() is not own:
            assert self._cut is not None
            self._halves[id(own)] = known = (weakref.ref(own), SecondHalf(own, self._cut, self._example))
        return known[1]

    def key(self, identity: str, **settings: Any) -> str:
        """The name of features in the folder.

        Args:
            identity: Which samples.
            settings: What else counts.
        """
        assert self._cut is not None
        example = self._example  # of texts the length of a batch says nothing
        shape = list(example) if isinstance(example, dict) else [list(each.shape[1:]) for each in tensors_in(example)]
        settings |= {"precision": str(self.forward.dtype), "device": self.run.device.type, "shape": shape}
        return features_key(self._cut, identity, **settings)


class ReusingSource(Wrapping):
    """A source of batches that are stored features where there are any, else what the loader gives.

    Args:
        reuse: What both sources of a fit share.
        source: The batches.
        loader: Theirs.
        training: Whether several views may serve.
    """

    def __init__(self, reuse: Reuse, source: Source, loader: DataLoader, *, training: bool) -> None:
        super().__init__(source)
        self.reuse, self.loader, self.training = reuse, loader, training
        self.store: FeatureStore | None = None
        self.computed = self._random = False

    def batches(self, epoch: int, start: int = 0, mine: Mine = None) -> Iterator[Any]:
        if self.reuse.stage() is None or self.store is None:
            return self.source.batches(epoch, start, mine)
        return dealt(self._stored(epoch, start), start, mine)

    def _stored(self, epoch: int, start: int) -> Iterator[Any]:
        assert self.store is not None
        for number in range(start, self.source.num_batches or 0):
            values, target = self.store.rows(self.source.indices(epoch, number) or [], epoch, self.seed)
            inputs = Features(values, self.reuse.half)
            yield (inputs, target) if target is not None else inputs

    def forget(self) -> None:
        """Another stage begins."""
        self.store, self.computed = None, False

    def described(self) -> str:
        """The samples in words."""
        assert self.store is not None
        samples = Message("{count:,} validation samples", count=self.store.samples)
        if self.training:
            samples = Message("{count:,} training samples", count=self.store.samples)
        if self.store.views == 1:
            return samples
        how = Message("mixed again in every epoch") if self.store.mixes else Message("in turn")
        return Message("{samples} ({views} views of each, {how})", samples=samples, views=self.store.views, how=how)

    @property
    def _views(self) -> int:
        """As many as asked for; where nothing is random all would be the same."""
        return self.reuse.settings.views or 1 if self.training and self._random else 1

    def first_inputs(self) -> Any:
        """The inputs of the first batch, if they are one tensor of numbers, or a text's tokens and what marks them."""
        for fetched in present(self._in_order(0, 0)):
            self._random, inputs = fetched.drew, split(fetched.batch)[0]
            if isinstance(inputs, Tensor) and inputs.is_floating_point() and inputs.dim() > 1:
                return inputs
            tokens = isinstance(inputs, dict) and "input_ids" in inputs
            return inputs if tokens and all(isinstance(each, Tensor) for each in inputs.values()) else None
        return None

    def store_features(self) -> bool:
        """Open or compute the features, if that is exact and there is room."""
        run, settings = self.reuse.run, self.reuse.settings
        shared = settings.shared
        identity = identity_of(self.loader.dataset) if folder_for(settings.cache, "features") else None
        place = self._key(identity or f"object {id(self.loader.dataset)}") if shared is not None else ""
        if shared is not None and place in shared:
            self.store = shared[place]
            return True
        self.store = self._new_store(identity)
        opened = not run.world.any(self.store.folder is None or not self.store.open())
        if opened and run.world.any(not self._is_right()):
            if run.world.local_rank == 0:
                self.store.discard()
            opened = False
            run.say(Message("stored features are not what the model computes now; they are recomputed"))
            run.world.wait()
        if not opened:
            self.store.values = self.store.targets = None
        try:
            if not opened:
                self.computed = True
                self._fill()
        except _NotReusable as reason:
            self.store.discard()
            self.store = None
            part = Message("training") if self.training else Message("validation")
            run.say(Message("features of the {part} data are not stored: {reason}", part=part, reason=reason))
        if shared is not None and self.store is not None:
            shared[place] = self.store
        return self.store is not None

    def _key(self, identity: str) -> str:
        return self.reuse.key(identity, views=self._views, seed=self.source.seed if self._views > 1 else None)

    def _new_store(self, identity: str | None) -> FeatureStore:
        settings = self.reuse.settings
        kept = None if identity is None else folder_for(settings.cache, "features")
        folder = None if kept is None or identity is None else kept / self._key(identity)
        return FeatureStore(len(self.loader.dataset), self._views, folder, memory_bytes=settings.memory_bytes)

    def _fill(self) -> None:
        assert self.store is not None
        streams = rng.state_dict()
        try:
            self.store.fill(self._computed, self.reuse.run.world)
        except DataError as error:
            raise _NotReusable(str(error)) from error
        finally:
            rng.load_state_dict(streams)

    def _computed(self, view: int, start: int) -> Iterator[tuple[Tensor, Any]]:
        """Features and targets in order; of several processes each computes its share, and gets the others'."""
        assert self.store is not None
        size = int(self.loader.batch_size or 1)
        first = start // size  # a killed computation is continued at a whole batch

        def batches(mine: Mine) -> Iterator[Any]:
            return self._in_order(view, first, mine=mine and (lambda number: mine(number - first)))

        desc = Message("features")
        if self._views > 1:
            desc = Message("features of view {view}/{views}", view=view + 1, views=self._views)
        unit, shown = Message("samples"), self.reuse.run.verbose
        with Bar(self.store.samples, desc=desc, unit=unit, initial=start, enabled=shown) as bar:
            for number, (_, found) in enumerate(InTurns(self.reuse.run, batches, self._compute), first):
                if isinstance(found, str):
                    raise _NotReusable(found)
                features, target = found
                if number == first and view == 0:
                    self._check_room(features)
                skip = start - first * size if number == first else 0
                bar.update(len(features) - skip)
                yield features[skip:], _skipped(target, skip)

    def _compute(self, number: int, fetched: Any) -> str | tuple[Tensor, Any]:
        """Features and target of a batch, or why they cannot be stored."""
        del number
        if fetched is LEFT_OUT or (reason := self._refusal(fetched)):
            return "some samples cannot be read" if fetched is LEFT_OUT else reason
        found = self.reuse.features(fetched.batch)
        return found if self.reuse.run.world.size == 1 else to_send(found)

    def _refusal(self, fetched: Fetched) -> str:
        if not fetched.repeats:
            return (
                "the samples differ when fetched again with the same seed; a generator that is kept as an attribute "
                "(self.rng), or the global streams of torch, numpy and random, could be seeded"
            )
        if fetched.drew and (not self.training or not self._random or self.reuse.settings.views is None):
            return (
                "they are prepared at random; reuse_features=ReuseFeatures(views=4) stores random views of each"
                if self.training
                else "they are prepared at random"
            )
        target = split(fetched.batch)[1]
        values = list(target.values()) if isinstance(target, dict) else [target]
        tensors = all(value is None or (isinstance(value, Tensor) and value.dim()) for value in values)
        if not tensors or rows_of(fetched.batch) is None:
            return "targets are not tensors with one row per sample"
        return ""

    def _check_room(self, features: Tensor) -> None:
        assert self.store is not None
        size = features[0].numel() * features.element_size() * self.store.samples * self.store.views
        limit = self.reuse.settings.cache_bytes
        if size > self.store.memory_bytes or self.store.folder is not None:
            make_room(2 * size, self.store.folder or home_of("features"))
            limit = min(limit, shutil.disk_usage(_existing(self.store.folder or home())).free // 2)
        if self.reuse.run.world.any(size > limit):
            raise _NotReusable(f"they would take {size / 1e9:.1f} GB, {limit / 1e9:.1f} GB are allowed")

    def _is_right(self) -> bool:
        """Recompute two rows and compare."""
        assert self.store is not None
        assert self.store.values is not None
        # Random numbers are drawn for whole batches, so a random view takes its batch to be made again.
        size = int(self.loader.batch_size or 1) if self._views > 1 else 1
        streams = rng.state_dict()
        try:
            for view, place in {(0, 0), (self._views - 1, self.store.samples - 1)}:
                fetched = next(present(self._in_order(view, place // size, size)))
                fresh = self.reuse.features(_row(fetched.batch, place % size))[0][0]
                kept = self.store.values[view * self.store.samples + place]
                if fresh.shape != kept.shape or not torch.allclose(fresh, kept, rtol=1e-3, atol=1e-4):
                    return False
        except (StopIteration, DlkitError):
            return False
        finally:
            rng.load_state_dict(streams)
        return True

    def _in_order(self, view: int, first: int, size: int | None = None, mine: Mine = None) -> Iterator[Any]:
        """The samples in the dataset's order, each batch with what it depends on."""
        seed = rng.derive(self.source.seed, rng.VIEWS)
        return in_order(self.loader, view, first, seed=seed, size=size or int(self.loader.batch_size or 1), mine=mine)


def _joined(parts: Sequence[str]) -> str:
    """One or two parts of the data, as they are said together."""
    return Message("{first} and {second}", first=parts[0], second=parts[1]) if len(parts) > 1 else parts[0]


class _NotReusable(Exception):  # noqa: N818  (not an error: the slow way is taken)
    pass


def _row(batch: Any, place: int) -> Any:
    """A batch of one of its samples; the target does not matter."""
    return map_leaves(split(batch)[0], lambda leaf: leaf[place : place + 1]), None


def _skipped(target: Any, count: int) -> Any:
    if isinstance(target, dict):
        return {name: value[count:] for name, value in target.items()}
    return None if target is None else target[count:]


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path

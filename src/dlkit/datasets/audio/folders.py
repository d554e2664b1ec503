"""`AudioFolder`: a folder per class. `AudioFiles`: recordings without labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Unpack

from dlkit.datasets.audio.dataset import AudioDataset
from dlkit.datasets.audio.settings import AudioOptions
from dlkit.datasets.files.folders import FileFolder, FileList

__all__ = ["AudioFiles", "AudioFolder"]


class AudioFolder(FileFolder, AudioDataset):
    """Recordings in a folder per class: `root/cat/1.wav`, `root/dog/2.flac`, decoded as fast as the machine allows.

    Samples are `(waveform, class)`: float32 [C, T] at `sample_rate`, one channel with `mono`, and int64. A stock
    `DataLoader(ds, 64, shuffle=True)` gets whole batches that all cores have decoded, if `seconds` makes them equally
    long; with `num_workers=1` they do so in their own process, while the model trains. Without `seconds`,
    `dlkit.DataLoader` pads each batch to its longest, `(waveforms, mask)`, and takes similar lengths together.

    WAV, FLAC, MP3, OGG (Vorbis, Opus), AIFF, AU and CAF are read by libsndfile (the extra `audio`); m4a, aac, webm and
    wma by torchcodec, where it is installed. Of a long recording only the part that is used is read.

    A layout of `root/train`, `root/val`, `root/test`, each with the class folders, is recognised: `split()` without
    arguments then gives these parts. Hidden files, files that are not recordings, and files outside of class folders
    are left out and told in `left_out`. Folders in class folders belong to the class. Symbolic links are followed.

    Args:
        root: The folder.
        classes: Their names in the order of the numbers, such as `train.classes`, or a mapping to these; by default the
            natural order, "2" before "10".
        part: "train", "val" or "test" of such a layout, alone.
        progress: Show a bar when scanning takes longer than two seconds.
        options: `sample_rate`, `mono`, `seconds`, `crop`, `transform`, `decoder`, `on_error`, `max_errors`, `cache`,
            `cache_bytes`, `batch_transform` and `threads`; see `AudioSettings`.

    Attributes:
        classes: The class names in the order of the targets.
        class_to_idx: The target of each class name.
        parts: Those of "train", "val", "test" that the folder is laid out in.
        left_out: What was not taken: a kind to how many and the first of them.

    Raises:
        DataNotFoundError: there is no such folder.
        DataError: it has no class folders with recordings, or other classes than `classes`.
        ArgumentError: an invalid argument.
        MissingExtraError: a package that reads these files is not installed.

    >>> import tempfile, pathlib, numpy as np, soundfile; folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("10/a.wav", "2/b.flac"):
    ...     (folder / name).parent.mkdir(); soundfile.write(folder / name, np.zeros((44_100, 2)), 44_100)
    >>> ds = AudioFolder(folder, seconds=0.5); ds.classes, ds[0][0].shape
    (['2', '10'], torch.Size([1, 8000]))
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        classes: Mapping[str, int] | Sequence[str] | None = None,
        part: str | None = None,
        progress: bool = True,
        **options: Unpack[AudioOptions],
    ) -> None:
        self._open(root, options, classes, part, progress=progress)


class AudioFiles(FileList, AudioDataset):
    """Recordings without labels, for prediction: a folder with all that is below it, or a list of files.

    Samples are the waveforms alone.

    Args:
        files: A folder, whose recordings are taken in natural order of their names; or paths, in the order given.
        progress: Show a bar when scanning takes longer than two seconds.
        options: As of `AudioFolder`; for prediction the `transform` that the model was trained with.

    Raises:
        DataNotFoundError: there is no such folder.
        DataError: it holds no recordings.
        MissingExtraError: a package that reads these files is not installed.

    >>> import tempfile, pathlib, numpy as np, soundfile; folder = pathlib.Path(tempfile.mkdtemp())
    >>> soundfile.write(folder / "a.wav", np.zeros(8_000), 8_000)
    >>> AudioFiles(folder)[0].shape
    torch.Size([1, 16000])
    """

    def __init__(
        self,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        progress: bool = True,
        **options: Unpack[AudioOptions],
    ) -> None:
        self._open(files, options, progress=progress)

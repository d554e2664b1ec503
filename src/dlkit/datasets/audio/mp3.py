"""Whether the length of an MP3 is known: it has a first frame that says it, or all its frames have one bit rate."""

from __future__ import annotations

from typing import IO

__all__ = ["after_id3", "frame_length", "length_is_a_guess"]

_PLACES, _PIECE = 24, 4096
_TAGS = (b"Xing", b"Info", b"VBRI")
_MPEG_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def length_is_a_guess(file: IO[bytes]) -> bool:
    """Whether decoders take the bit rate of the first frame for that of all, although it is not.

    Files without such a first frame come from old encoders and from streams. Frames are looked at in some places of the
    file, not all.

    Args:
        file: An MP3 or MPEG layer 3 file.
    """
    begin = after_id3(file)
    file.seek(begin)
    head = file.read(_PIECE)
    first = _frame(head, None)
    if first is None or any(tag in head[: first[0] + 256] for tag in _TAGS):
        return False
    size = file.seek(0, 2)
    for place in range(1, _PLACES):
        file.seek(begin + (size - begin) * place // _PLACES)
        found = _frame(file.read(_PIECE), first[1])
        if found is not None and found[1] >> 12 & 15 != first[1] >> 12 & 15:
            return True
    return False


def after_id3(file: IO[bytes]) -> int:
    """Where the tag ends that may be in front of a sound, with pictures of it and all; 0 where there is none.

    Args:
        file: Of any kind.
    """
    file.seek(0)
    head = file.read(10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = 0
    for byte in head[6:]:
        size = size << 7 | byte & 127
    return 10 + size


def _frame(data: bytes, like: int | None) -> tuple[int, int] | None:
    """The first header of a frame that another one follows where it ends: its place and its four bytes.

    Args:
        data: Some of a file.
        like: A header of the same stream; None takes the first that there is.
    """
    place = data.find(b"\xff")
    while 0 <= place <= len(data) - 4:
        header = int.from_bytes(data[place : place + 4], "big")
        length = frame_length(header)
        if length and (like is None or header & 0xFFFE0C00 == like & 0xFFFE0C00):
            following = int.from_bytes(data[place + length : place + length + 4], "big")
            if following & 0xFFFE0C00 == header & 0xFFFE0C00:
                return place, header
        place = data.find(b"\xff", place + 1)
    return None


def frame_length(header: int) -> int:
    """Bytes of a frame of layer 3; 0 for what is not the header of one.

    Args:
        header: Its first four bytes.
    """
    version, bitrate, rate = header >> 19 & 3, header >> 12 & 15, header >> 10 & 3
    if header >> 21 != 0x7FF or header >> 17 & 3 != 1 or version == 1 or bitrate in (0, 15) or rate == 3:
        return 0
    kilobits = (_MPEG_1 if version == 3 else _MPEG_2)[bitrate]
    return (144 if version == 3 else 72) * kilobits * 1000 // _RATES[version][rate] + (header >> 9 & 1)

"""From the bytes of a request to inputs. Nothing that a client sends names a file, an address or a program here."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from torch import Tensor

from dlkit import _bounds
from dlkit._filekinds import HEAD, kind_of
from dlkit.errors import ArgumentError, DlkitError
from dlkit.inference.predictor import Predictor
from dlkit.serving.kinds import TAKES, Takes, decoded, in_json
from dlkit.serving.limits import Limits
from dlkit.serving.refusals import RefusedError, sentence_of

__all__ = ["Asked", "Part", "asked_in", "from_json", "media_type"]

_PLACE = re.compile(r"^(?:image|row|text|sound) \d+: ")
_EMPTY = "the body is empty"


class Part(NamedTuple):
    """What a model says of some of a request's inputs.

    Attributes:
        size: How many they are.
        errors: Why some cannot be used, by their places in the request.
        probabilities: Of the others, in order; None if there are none.
    """

    size: int
    errors: Mapping[int, str]
    probabilities: Tensor | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """The inputs of a request.

    Attributes:
        takes: How they came.
        limits: What they may be.
        size: How many there are; of a file the most that there can be.
        inputs: As `Predictor.predict` takes each; None instead of one that cannot be used.
        file: The content of a table, in place of inputs.
        refused: Why inputs cannot be used, by place.
        top_k: How many classes are wanted, where the body says so.
        small: Whether it is one input of few bytes, of a kind whose bytes say how much work it is.
    """

    takes: Takes
    limits: Limits
    size: int
    inputs: Sequence[Any] = ()
    file: bytes | None = None
    refused: Mapping[int, str] = dataclasses.field(default_factory=dict)
    top_k: int | None = None
    small: bool = False

    @classmethod
    def joined(cls, several: Sequence[Asked]) -> Asked:
        """Requests of one input each as one.

        Args:
            several: Of the same kind.
        """
        refused = {place: why for place, each in enumerate(several) for why in each.refused.values()}
        inputs = [each.inputs[0] for each in several]
        return dataclasses.replace(several[0], size=len(several), inputs=inputs, refused=refused)

    def answered(self, predictor: Predictor, batch_size: int | None) -> Iterator[Part]:
        """What the model says of all, batch by batch as it is computed.

        Args:
            predictor: The model.
            batch_size: Inputs per forward pass; None for as many as `Predictor.predict` takes.
        """
        places, given, begin = list[int](), self.file, 0
        if given is None:
            refused = dict(self.refused)
            for place, one in enumerate(self.inputs):
                if place not in refused and (why := self.takes.check(one, self.limits)):
                    refused[place] = why
            if refused:
                yield Part(len(refused), refused, None)
            places = [place for place in range(self.size) if place not in refused]
            if not places:
                return
            given = self.takes.gather([self.inputs[place] for place in places])
        for batch, probabilities in predictor.answers(given, batch_size=batch_size, on_error="skip"):
            errors = {begin + place: _PLACE.sub("", why) for place, why in batch.errors.items()}
            if places:
                errors = {places[place]: why for place, why in errors.items()}
            yield Part(batch.size, errors, probabilities)
            begin += batch.size


def asked_in(headers: Mapping[str, str], body: bytes, predictor: Predictor, limits: Limits) -> Asked:
    """The inputs in the body of a request.

    Args:
        headers: Of the request.
        body: All of it.
        predictor: The model that is to answer.
        limits: What is allowed.

    Raises:
        RefusedError: the body is not what its media type says, or the model takes something else.
    """
    takes = TAKES[predictor.kind]
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError(415, "compressed bodies are not taken; send the body as it is, without Content-Encoding")
    media, parameters = media_type(headers.get("content-type", ""))
    if media == "multipart/form-data":
        return _of_form(headers, body, predictor, limits)
    if not body:
        raise RefusedError(400, f"{_EMPTY}; {_wanted(takes)}")
    if media == "application/json":
        return from_json(_parsed(body), predictor, limits, small=len(body) < takes.small)
    if media in takes.files:
        return _of_file(body, parameters, predictor, limits)
    if _fits(media, takes.raw):
        return Asked(takes=takes, limits=limits, size=1, inputs=[takes.of_raw(body, parameters)])
    given = f"and the body is {media!r:.80}" if media else "and the request has no Content-Type"
    raise RefusedError(415, f"{_wanted(takes)}, {given}")


def media_type(header: str) -> tuple[str, dict[str, str]]:
    """A Content-Type in its parts.

    Args:
        header: Its value.

    >>> media_type('Text/Plain; charset="UTF-8"')
    ('text/plain', {'charset': 'UTF-8'})
    """
    media, *rest = header.split(";")
    pairs = (part.partition("=") for part in rest if "=" in part)
    return media.strip().lower(), {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def _fits(media: str, wanted: Sequence[str]) -> bool:
    return any(media == each or (each.endswith("/*") and media.startswith(each[:-1])) for each in wanted)


def _wanted(takes: Takes) -> str:
    ways = [
        *takes.raw,
        *takes.files,
        "application/json",
        *(["multipart/form-data"] if takes.raw or takes.files else []),
    ]
    return (
        f"this model takes {takes.nouns}, as {', '.join(ways[:-1])} or {ways[-1]}"
        if ways[1:]
        else (f"this model takes {takes.nouns}, as {ways[0]}")
    )


def _parsed(body: bytes) -> Any:
    try:
        return _bounds.parse(body, "the body")
    except ArgumentError as error:
        raise RefusedError(400, str(error)) from error


def from_json(value: Any, predictor: Predictor, limits: Limits, *, small: bool = False) -> Asked:
    """The inputs in a document of JSON: a list of them, one of them, or an object with "inputs" and "top_k".

    Args:
        value: What JSON gave.
        predictor: The model that is to answer.
        limits: What is allowed.
        small: Whether the document has few bytes.

    Raises:
        RefusedError: it holds no inputs, or too many.
    """
    takes, top_k = TAKES[predictor.kind], None
    if isinstance(value, Mapping) and isinstance(value.get("inputs"), list):
        if unknown := sorted(set(value) - {"inputs", "top_k"}):
            raise RefusedError(400, f"beside 'inputs' the body may have 'top_k', not {unknown[0]!r:.80}")
        top_k, value = value.get("top_k"), value["inputs"]
        if top_k is not None and (type(top_k) is not int or top_k < 1):
            raise RefusedError(400, f"top_k must be a whole number of at least 1, not {in_json(top_k)}")
    given = value if isinstance(value, list) else [value]
    if not given:
        raise RefusedError(400, f"the list of inputs is empty; each is {takes.json}")
    _check_count(len(given), limits)
    inputs, refused = list[Any](), dict[int, str]()
    for place, each in enumerate(given):
        try:
            inputs.append(takes.of_json(each, predictor))
        except ArgumentError as error:
            inputs.append(None)
            refused[place] = str(error)
    small = small and len(given) == 1
    return Asked(takes=takes, limits=limits, size=len(given), inputs=inputs, refused=refused, top_k=top_k, small=small)


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.inputs:
        raise RefusedError(413, f"the request has {count:,} inputs, and this server takes {limits.inputs:,} at a time")


def _of_file(body: bytes, parameters: Mapping[str, str], predictor: Predictor, limits: Limits) -> Asked:
    takes = TAKES[predictor.kind]
    if not body:
        raise RefusedError(400, "the table is empty (0 bytes)")
    if (kind := kind_of(body[:HEAD])) is not None:
        raise RefusedError(415, f"the body is {kind.name}, and a table is taken as text, CSV")
    body = decoded(body, parameters).encode()
    rows = max(1, body.count(b"\n"), body.count(b"\r")) - 1  # without the header; a last line need not end
    _check_count(rows, limits)
    if takes.of_file is None:
        return Asked(takes=takes, limits=limits, size=max(1, rows), file=body)
    try:
        found = list(takes.of_file(body, predictor))
    except DlkitError as error:
        raise RefusedError(422, sentence_of(error)) from error
    if not found:
        raise RefusedError(400, "the table has no rows")
    refused = {place: row for place, row in enumerate(found) if isinstance(row, str)}
    inputs = [None if isinstance(row, str) else row if row[1:] else row[0] for row in found]
    return Asked(takes=takes, limits=limits, size=len(found), inputs=inputs, refused=refused)


def _of_form(headers: Mapping[str, str], body: bytes, predictor: Predictor, limits: Limits) -> Asked:
    """Every part is an input, in the order of the form; of a table there is one part, its file."""
    takes = TAKES[predictor.kind]
    parts = _parts(headers.get("content-type", ""), body, limits)
    if not parts:
        raise RefusedError(400, "the form has no parts; each part is an input")
    if not takes.raw and takes.files:
        if len(parts) > 1:
            raise RefusedError(400, f"the form has {len(parts)} parts; of a table it may have one, the CSV file")
        return _of_file(parts[0], {}, predictor, limits)
    if not takes.raw:
        raise RefusedError(415, _wanted(takes))
    return Asked(takes=takes, limits=limits, size=len(parts), inputs=[takes.of_raw(part, {}) for part in parts])


def _parts(content_type: str, body: bytes, limits: Limits) -> list[bytes]:
    """The contents of a form's parts. What their headers say, names of files and the like, is of no interest."""
    parts, ended = list[bytearray](), False

    def begin() -> None:
        _check_count(len(parts) + 1, limits)
        parts.append(bytearray())

    def data(piece: bytes, start: int, end: int) -> None:
        parts[-1] += piece[start:end]

    def finish() -> None:
        nonlocal ended
        ended = True

    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise RefusedError(400, "the Content-Type of the form has no boundary")
    try:
        parser = MultipartParser(boundary, {"on_part_begin": begin, "on_part_data": data, "on_end": finish})
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RefusedError(400, f"the multipart body cannot be read: {error}") from error
    if not ended:
        raise RefusedError(400, "the multipart body is cut off: its last boundary is missing")
    return [bytes(part) for part in parts]

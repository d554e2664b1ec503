"""Print the import graph of dlkit: rooms, floors, arrows, what points upwards, and cycles.

    python tools/import_graph.py            # a line for each room, from the highest floor down
    python tools/import_graph.py training   # what one room imports from, file by file, and who imports from it

A room is a folder of src/dlkit, or a file beside the folders. What an import is, and the order of the files, is said
once, in tests/test_layers.py.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from test_layers import LAYERS, NEVER, SRC, faults, imports

Graph = Mapping[str, set[str]]


def room_of(file: str) -> str:
    """The room that a file stands in; the door of the library is a room of its own."""
    return file.split("/")[0]


def rooms_of(files: Graph) -> dict[str, set[str]]:
    """Which rooms each room imports from."""
    arrows: dict[str, set[str]] = {room_of(file): set() for file in files}
    for file, others in files.items():
        arrows[room_of(file)] |= {room_of(other) for other in others} - {room_of(file)}
    return arrows


def reached(graph: Graph, start: str) -> set[str]:
    """All that is reached from a room, itself only through a cycle."""
    seen, queue = set[str](), [start]
    while queue:
        new = graph[queue.pop()] - seen
        seen |= new
        queue += new
    return seen


def cycles(graph: Graph) -> list[list[str]]:
    """The rooms that reach each other, group by group."""
    far = {room: reached(graph, room) for room in graph}
    groups = {frozenset(other for other in far[room] if room in far[other]) for room in graph if room in far[room]}
    return sorted(sorted(group) for group in groups)


def floors(graph: Graph) -> dict[str, int]:
    """How many rooms stand one on the other below each; rooms of a cycle stand side by side."""
    together = {room: frozenset(group) for group in cycles(graph) for room in group}
    found: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in found:
            group = together.get(room, frozenset([room]))
            below = {other for each in group for other in graph[each]} - group
            height = 1 + max(map(floor, sorted(below)), default=-1)
            found.update(dict.fromkeys(group, height))
        return found[room]

    for room in graph:
        floor(room)
    return found


def lines(files: list[str]) -> int:
    """Lines of some files."""
    return sum((SRC / f"{file}.py").read_text(encoding="utf-8").count("\n") for file in files)


def overview(files: Graph) -> Iterator[str]:
    """The whole graph."""
    arrows = rooms_of(files)
    height, users = floors(arrows), defaultdict[str, int](int)
    for room, others in arrows.items():
        for other in others - {room}:
            users[other] += 1
    yield f"{'floor':>5} {'files':>5} {'lines':>6} {'users':>5}  room: imports from"
    for room in sorted(arrows, key=lambda room: (-height[room], room)):
        inside = [file for file in files if room_of(file) == room]
        below = ", ".join(sorted(arrows[room])) or "nothing"
        yield f"{height[room]:>5} {len(inside):>5} {lines(inside):>6} {users[room]:>5}  {room}: {below}"
    found, wrong = cycles(arrows), faults(SRC, LAYERS, NEVER)
    count, high = sum(map(len, arrows.values())), 1 + max(height.values())
    yield f"{len(arrows)} rooms, {high} floors, {count} arrows between rooms, {lines(list(files))} lines"
    yield f"cycles between rooms: {'; '.join(' <-> '.join(group) for group in found) or 'none'}"
    yield f"upward arrows between files: {'; '.join(wrong) or 'none'}"


def one_room(files: Graph, room: str) -> Iterator[str]:
    """What a room imports from, and who imports from it."""
    for file in files:
        if room_of(file) == room:
            outside = sorted(other for other in files[file] if room_of(other) != room)
            yield f"{file} <- {', '.join(outside) or 'nothing outside'}"
    for file, others in files.items():
        taken = sorted(other for other in others if room_of(other) == room)
        if taken and room_of(file) != room:
            yield f"used by {file}: {', '.join(taken)}"


def main(arguments: list[str]) -> int:
    """Print the graph, or one room of it."""
    files = {file: imports(SRC, file) for file in LAYERS}
    if not arguments:
        print("\n".join(overview(files)))
        return 0
    if unknown := set(arguments) - {room_of(file) for file in files}:
        print(f"there is no room {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    for room in arguments:
        print("\n".join(one_room(files, room)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""Do the arrows between the core's files run down only, without circles? Part of `make lint`.

A file takes from those below it. The one circle allowed is that of a `mod.rs` with the files of its own room.
What is read are the `use` lines and the `crate::` and `super::` paths of everything but tests.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

# From below to above; what stands on one line may use each other, but not in a circle.
FLOORS = [
    ["patience"],
    ["error"],
    ["clock", "diff", "process", "rules", "state", "user", "visible"],
    ["file"],
    ["statement"],
    ["audit", "grant"],
    ["registration"],
    ["queue"],
    ["bottle"],
    ["wait"],
    ["verbs"],
    ["broker"],
    ["stores"],
]

Module = tuple[str, ...]


def modules(root: Path) -> dict[Module, str]:
    """The source of each module that is not a test, without its tests."""
    found = {}
    for path in sorted(root.rglob("*.rs")):
        parts = path.relative_to(root).with_suffix("").parts
        name = parts[:-1] if parts[-1] in ("mod", "lib") else parts
        found[name] = re.sub(r"//.*", "", path.read_text().split("\n#[cfg(test)]\nmod tests {")[0])
    for name, source in list(found.items()):
        for test in re.findall(r"#\[cfg\(test\)\]\s*mod (\w+);", source):
            found.pop((*name, test), None)
    return found


def paths(text: str) -> Iterator[str]:
    """`a::{b, c::{d}}` as `a::b`, `a::c::d`."""
    text = text.strip()
    group = re.fullmatch(r"((?:\w+::)*)\{(.*)\}", text, re.S)
    if not group:
        yield re.sub(r" as \w+", "", text)
        return
    depth, part = 0, ""
    for char in group[2] + ",":
        if char == "," and depth == 0:
            if part.strip():
                for inner in paths(part):
                    yield group[1] + inner
            part = ""
        else:
            depth += {"{": 1, "}": -1}.get(char, 0)
            part += char


def uses(name: Module, source: str, known: dict[Module, str]) -> Iterator[Module]:
    """The modules that a module takes something from."""
    statement = re.compile(r"^\s*(?:pub(?:\([\w ]+\))? )?use ((?:crate|super|self|\w+)::[^;]+|\w+);", re.M)
    written = [path for found in statement.finditer(source) for path in paths(found[1])]
    written += re.findall(r"\b(?:crate|super)(?:::\w+)+", statement.sub("", source))
    for path in written:
        steps = tuple(path.split("::"))
        if steps[0] == "crate":
            steps = steps[1:]
        elif steps[0] == "super":
            up = list(name[:-1])
            steps = steps[1:]
            while steps and steps[0] == "super":
                up.pop()
                steps = steps[1:]
            steps = (*up, *steps)
        else:  # relative to the module itself, or another crate
            steps = (*name, *(steps[1:] if steps[0] == "self" else steps))
            if steps[: len(name) + 1] not in known:
                continue
        while steps and steps not in known:
            steps = steps[:-1]
        if steps and steps != name:
            yield steps


def circle(graph: dict[Module, set[Module]]) -> list[Module] | None:
    """A way that ends where it began."""
    done: set[Module] = set()

    def walk(at: Module, way: list[Module]) -> list[Module] | None:
        if at in way:
            return [*way[way.index(at) :], at]
        if at in done:
            return None
        for to in sorted(graph[at]):
            if found := walk(to, [*way, at]):
                return found
        done.add(at)
        return None

    return next((found for start in sorted(graph) if (found := walk(start, []))), None)


def complaints(root: Path) -> list[str]:
    """What is wrong with the files under `root`, in sentences."""
    known = modules(root)
    known.pop((), None)  # lib.rs says what is public, and may take it from everywhere
    floor = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
    wrong = []
    graph: dict[Module, set[Module]] = {name: set() for name in known}
    for name, source in known.items():
        if name[0] not in floor:
            wrong.append(f"{'::'.join(name)} has no floor; give it one in {Path(__file__).name}")
            continue
        for other in uses(name, source, known):
            if floor.get(other[0], -1) > floor[name[0]]:
                wrong.append(f"{'::'.join(name)} uses {'::'.join(other)}, which is above it")
            if other != name[:-1] and name != other[:-1]:
                graph[name].add(other)
    if way := circle(graph):
        wrong.append("a circle: " + " → ".join("::".join(name) for name in way))
    return wrong


if __name__ == "__main__":
    found = complaints(Path(sys.argv[1] if len(sys.argv) > 1 else "rust/store/src"))
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(bool(found))

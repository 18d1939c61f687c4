"""`section.key=value` overrides of a configuration that is still a plain tree."""

from typing import Any

import yaml

__all__ = ["apply_override", "merged"]

Tree = dict[str, Any]


def apply_override(tree: Tree, override: str) -> None:
    """Sets one value, parsed as YAML; a number in the key stands for an entry of a list: `data.sets.0.images=photos`.

    A model that is named by its preset becomes a section, so that parts of it can be set. Raises ValueError for what
    is no such pair, and for a place that is not there.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ValueError(f"expected key=value, got {override!r}; example: optimizer.learning_rate=0.001")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"cannot read the value of {override!r} as YAML, such as 0.001, [128, 64] or null") from error
    *parents, last = key.split(".")
    if parents and parents[0] == "model" and isinstance(tree.get("model"), str):
        tree["model"] = {"preset": tree["model"]}
    node: Any = tree
    name = "the configuration"
    for parent in parents:
        place = _place(node, parent, key, name)
        if isinstance(node, dict):
            node.setdefault(place, {})
        node, name = node[place], repr(parent)
    node[_place(node, last, key, name)] = value


def _place(node: Any, part: str, key: str, name: str) -> str | int:
    """What `part` of a key means to `node`, which is called `name`."""
    if isinstance(node, dict):
        return int(part) if part.isdigit() and int(part) in node else part  # crop sizes are numbers
    if not isinstance(node, list):
        raise ValueError(f"cannot set {key!r}: {name} is a value, not a section")
    if not part.isdigit() or int(part) >= len(node):
        raise ValueError(f"cannot set {key!r}: {name} is a list of {len(node)}, which has no {part!r}; the first is 0")
    return int(part)


def merged(base: Tree, changes: Tree) -> Tree:
    """`base` with `changes`, section by section; a key that ends in + adds to the list of that name."""
    result = dict(base)
    for key, value in changes.items():
        if key.endswith("+") and isinstance(value, list):
            result[key[:-1]] = [*result.get(key[:-1], []), *value]
            continue
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result

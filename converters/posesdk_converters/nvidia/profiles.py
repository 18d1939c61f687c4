"""The shapes that the engines of a model are built for."""

from posesdk.methods import method_of
from posesdk.preprocess import make_letterbox
from posesdk.spec import InputSpec, ModelSpec
from posesdk_converters.target import Graph
from posesdk_runtimes.engines.recipe import GraphRecipe, ShapeRange

__all__ = ["engine_recipes"]

USUAL_PICTURE = (1080, 1920)
"""Height and width of what most cameras give: engines are tuned for it."""
LONGEST = 2.4
"""Longest input of a model whose short side is set, in short sides: wide-screen cinema. Longer pictures fail."""
USUAL_PERSONS = 5
Size = tuple[int, int]


def engine_recipes(spec: ModelSpec, input_size: Size | None, workspace_mib: int) -> dict[Graph, GraphRecipe]:
    """The recipe of each graph of a model; `input_size` (height, width) where the trunk has a fixed one.

    A free input may be as small as the model allows, and both sides as long as a picture of its own format can make
    them; engines take scratch memory for the largest, so that a fixed size is cheaper.
    """
    least, usual, most = (input_size,) * 3 if input_size else _sizes(spec)
    images = 2 if spec.decode.flip_test else 1
    _, *sides = method_of(spec).context_shape(spec)
    context = tuple(side or 1 for side in sides)
    # Each center of a person gives a pose, and the graph sees all poses of an image at once.
    most_poses = spec.most_candidates * spec.center_count
    usual_poses = min(USUAL_PERSONS * spec.center_count, most_poses)
    shapes: dict[Graph, tuple[str, ShapeRange]] = {
        "trunk": ("image", ShapeRange((1, *least, 3), (images, *usual, 3), (images, *most, 3))),
        "adapt": (
            "context",
            ShapeRange(*((count, *context) for count in (1, usual_poses, most_poses))),
        ),
    }
    return {
        graph: GraphRecipe({name: sizes}, strongly_typed=True, workspace_mib=workspace_mib)
        for graph, (name, sizes) in shapes.items()
    }


def _sizes(spec: ModelSpec) -> tuple[Size, Size, Size]:
    """Smallest, usual and largest size of the input."""
    source = spec.input
    usual = make_letterbox(USUAL_PICTURE, source, spec.frame).net_size
    side = _up(source.side, source)
    if source.resize == "long":
        return (source.multiple, source.multiple), usual, (side, side)
    longest = _up(LONGEST * side, source)
    return (side, side), usual, (longest, longest)


def _up(length: float, source: InputSpec) -> int:
    return int(-(-length // source.multiple)) * source.multiple

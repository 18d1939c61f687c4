"""OpenVINO graphs that take pictures as they are: colours and scale become a part of the graph."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posesdk_runtimes.base import Runtime
from posesdk_runtimes.openvino import import_openvino, shared_core
from posesdk_runtimes.registry import open_runtime

__all__ = ["Colours", "open_graph", "read_graph"]


@dataclass(frozen=True, slots=True)
class Colours:
    """What a network wants of BGR values 0 to 255: (value - mean) / scale, in its own order of channels."""

    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    rgb: bool


def read_graph(path: Path) -> Any:
    """The `openvino.Model` of an .xml or .onnx file. Raises FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; name the folder of the published models with --peers")
    return shared_core().read_model(str(path))


def open_graph(model: Any, colours: Colours, threads: int) -> Runtime:
    """The model with one picture input (1, H, W, 3) uint8 BGR in place of its planes, as posesdk's runtime opens it.

    The way OpenVINO recommends, and the fastest: the conversion needs no pass over the input of its own.
    """
    openvino = import_openvino()
    from openvino.preprocess import ColorFormat, PrePostProcessor

    steps = PrePostProcessor(model)
    picture = steps.input()
    picture.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    picture.tensor().set_color_format(ColorFormat.BGR)
    picture.model().set_layout(openvino.Layout("NCHW"))
    if colours.rgb:
        picture.preprocess().convert_color(ColorFormat.RGB)
    picture.preprocess().convert_element_type(openvino.Type.f32)
    picture.preprocess().mean(list(colours.mean)).scale(list(colours.scale))
    built = steps.build()
    built.get_parameters()[0].set_layout(openvino.Layout())  # the shape says it; the runtime reads layouts of its own
    for index, output in enumerate(built.outputs):
        output.get_tensor().set_names({f"output_{index}"})  # some exports name none, and the runtime goes by names
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.xml")
        openvino.save_model(built, str(path), compress_to_fp16=False)
        return open_runtime(path, runtime="openvino", threads=threads)

"""Draws the people of a scene with OpenGL, without a window (EGL)."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk_runtimes.errors import DeviceUnavailableError, MissingDependencyError
from posesdk_training.synthetic.cast import Cast
from posesdk_training.synthetic.lights import Lights
from posesdk_training.synthetic.materials import LAYER_SIDE, LAYERS, Materials
from posesdk_training.synthetic.scene import Scene
from posesdk_training.synthetic.shaders import FRAGMENT_SHADER, MAX_BONES, VERTEX_SHADER

__all__ = ["Drawing", "Renderer"]

Floats = NDArray[np.float32]

SUPERSAMPLING = 2
VERTEX_FORMAT = ("3f 3f 2f 1f 4u1 4f", "position", "normal", "texture_at", "slot", "bones", "shares")

COARSE_BELOW = (170.0, 85.0)
"""Apparent heights, px of the finished picture, below which the coarser meshes are drawn."""

INSTALL = (
    "install moderngl (`pip install 'posesdk[synthetic]'`) and EGL "
    "(Debian: `apt install libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri`; no display and no GPU are needed)"
)


@dataclass(frozen=True, slots=True)
class Drawing:
    """What the renderer gives, each (H, W): `color` (H, W, 3) float BGR times `opacity` (0..1); `shadow` 0..1.

    `ids` and `depths` are those of a pixel's top-left quarter: the person's number from 1 (0: none), dm along the view.
    """

    color: Floats
    opacity: Floats
    ids: NDArray[np.uint8]
    depths: Floats
    shadow: Floats | None


class Renderer:
    """Draws scenes of `size` (width, height). `layers`: see materials.pattern_layers.

    Raises MissingDependencyError without moderngl, DeviceUnavailableError where no EGL context can be made.
    """

    def __init__(self, cast: Cast, size: tuple[int, int], layers: NDArray[np.uint8]) -> None:
        self._cast = cast
        self._size = size
        self._context = _context()
        context = self._context
        self._program = context.program(vertex_shader=VERTEX_SHADER, fragment_shader=FRAGMENT_SHADER)
        self._program["Bones"].binding = 0
        self._bones = context.buffer(reserve=MAX_BONES * 64)
        self._bones.bind_to_uniform_block(0)
        large = (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
        targets = [context.texture(large, 4), context.texture(large, 2, dtype="f2")]
        self._frame = context.framebuffer(targets, context.depth_renderbuffer(large))
        texture = context.texture_array((LAYER_SIDE, LAYER_SIDE, LAYERS), 3, layers.tobytes())
        texture.build_mipmaps()
        texture.use(0)
        self._texture = texture
        self._meshes: dict[tuple[int, int], Any] = {}
        self._buffers: dict[int, Any] = {}

    def draw(self, scene: Scene, lights: Lights, materials: list[Materials]) -> Drawing:
        """The people of a scene; one of `materials` for each."""
        with self._context:  # there may be another renderer in this process
            return self._draw(scene, lights, materials)

    def _draw(self, scene: Scene, lights: Lights, materials: list[Materials]) -> Drawing:
        program = self._program
        self._frame.use()
        self._context.enable_only(self._context.DEPTH_TEST)
        program["projection"].write(scene.camera.projection.T.astype("f4").tobytes())
        program["ground"].value = tuple(scene.ground)
        program["up"].value = tuple(scene.camera.up)
        for name, value in lights.uniforms().items():
            program[name].value = tuple(value)
        shadow = self._shadow(scene) if lights.casts_shadow else None
        self._frame.clear()
        program["shadow"].value = 0
        for number, (person, material) in enumerate(zip(scene.people, materials, strict=True), start=1):
            program["colors"].write(material.colors.tobytes())
            program["patterns"].write(material.patterns.tobytes())
            program["person"].value = float(number)
            distance = max(1.0, float(-person.keypoints[:, 2].mean()))
            apparent = scene.camera.focal * self._cast[person.character].height / distance
            self._draw_person(person.character, person.matrices, sum(apparent < limit for limit in COARSE_BELOW))
        return self._read(shadow)

    def _shadow(self, scene: Scene) -> Floats:
        """(H, W) the share of a pixel that lies in somebody's shadow on the ground."""
        self._frame.clear()
        self._program["shadow"].value = 1
        for person in scene.people:
            self._draw_person(person.character, person.matrices, len(COARSE_BELOW))
        values = self._pixels(0, components=1, dtype=np.uint8)[..., 0]
        return np.asarray(cv2.resize(values, self._size, interpolation=cv2.INTER_AREA), dtype=np.float32) / np.float32(
            255
        )

    def _draw_person(self, character: int, matrices: NDArray[np.float64], coarseness: int) -> None:
        self._bones.write(np.ascontiguousarray(matrices.transpose(0, 2, 1), dtype=np.float32).tobytes())
        self._mesh(character, coarseness).render()

    def _mesh(self, character: int, coarseness: int) -> Any:
        key = (character, coarseness)
        if key not in self._meshes:
            if character not in self._buffers:
                self._buffers[character] = self._context.buffer(self._cast[character].vertices.tobytes())
            triangles = self._context.buffer(self._cast[character].triangles[coarseness].tobytes())
            content = [(self._buffers[character], *VERTEX_FORMAT)]
            self._meshes[key] = self._context.vertex_array(self._program, content, triangles)
        return self._meshes[key]

    def _read(self, shadow: Floats | None) -> Drawing:
        color = cv2.resize(self._pixels(0, components=4, dtype=np.uint8), self._size, interpolation=cv2.INTER_AREA)
        seen = self._pixels(1, components=2, dtype=np.float16)[::SUPERSAMPLING, ::SUPERSAMPLING].astype(np.float32)
        return Drawing(
            color=color[..., 2::-1].astype(np.float32),
            opacity=color[..., 3].astype(np.float32) / np.float32(255),
            ids=seen[..., 0].astype(np.uint8),
            depths=seen[..., 1],
            shadow=shadow,
        )

    def _pixels(self, attachment: int, *, components: int, dtype: Any) -> NDArray[Any]:
        """(H, W, components) of the large frame, top row first."""
        kind = "f2" if dtype is np.float16 else "f1"
        data = self._frame.read(components=components, attachment=attachment, alignment=1, dtype=kind)
        width, height = (side * SUPERSAMPLING for side in self._size)
        return np.frombuffer(data, dtype=dtype).reshape(height, width, components)[::-1]


def _context() -> Any:
    try:
        import moderngl
    except ImportError as error:
        raise MissingDependencyError(
            f"rendering people needs moderngl, which cannot be imported: {error}; {INSTALL}"
        ) from error
    try:
        settings: dict[str, Any] = {"backend": "egl", "libgl": "libGL.so.1", "libegl": "libEGL.so.1"}
        return moderngl.create_context(standalone=True, **settings)
    except Exception as error:  # moderngl raises bare Exceptions
        raise DeviceUnavailableError(f"cannot open an OpenGL context without a window: {error}; {INSTALL}") from error

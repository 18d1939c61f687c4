"""A bundle in words."""

from collections.abc import Iterator

from posesdk.bundle import Bundle
from posesdk.manifest import Manifest
from posesdk.spec import Centers, InputSpec, ModelSpec

__all__ = ["describe"]

CENTERS: dict[Centers, str] = {"single": "one center", "dual": "head and body center"}


def describe(bundle: Bundle) -> Iterator[str]:
    """Lines that tell what a bundle holds."""
    manifest = bundle.manifest
    spec = manifest.model
    made = f", made {manifest.created}" if manifest.created else ""
    yield f"{manifest.id} {manifest.version}{made}"
    yield f"  model      {spec.method}, {CENTERS[spec.centers]}, {spec.backbone.kind} backbone, {_refinement(spec)}"
    yield f"  skeleton   {spec.skeleton.name}, {len(spec.skeleton)} keypoints"
    yield f"  input      {_input(spec.input)}"
    yield (
        f"  thresholds person {spec.decode.score_threshold}, keypoint {spec.decode.keypoint_threshold}, "
        f"flip test {'on' if spec.decode.flip_test else 'off'}"
    )
    yield from _variants(manifest)
    for entry in manifest.accuracy:
        figures = ", ".join(f"{name} {value:.3f}" for name, value in entry.metrics.items())
        yield f"  accuracy   {entry.variant} on {entry.dataset} ({entry.images} images): {figures}"
        if entry.note:
            yield f"             {entry.note}"
    licence = manifest.licence
    yield f"  licence    code {licence.code}, weights {licence.weights}"
    for index, data in enumerate(licence.training_data):
        yield f"  {'trained on' if index == 0 else '':10} {data}"
    for index, (name, value) in enumerate(manifest.provenance.items()):
        yield f"  {'made by' if index == 0 else '':10} {name}: {value}"
    size = sum(file.size for file in manifest.files)
    yield f"  files      {len(manifest.files)}, {size / 2**20:.1f} MiB, all as the manifest says"


def _refinement(spec: ModelSpec) -> str:
    """What is done with the poses that the centers give."""
    if spec.method == "logocap":
        return f"adaptation {spec.adaptation.level}"
    names = [name for name in ("similarity", "confidence", "refinement") if getattr(spec.pose_nets, name)]
    return f"pose networks: {', '.join(names) or 'none'}"


def _variants(manifest: Manifest) -> Iterator[str]:
    for variant in manifest.variants:
        # A graph's weights may lie beside it, under its name: OpenVINO's .bin, ONNX external data.
        stems = tuple(f"{name.rpartition('.')[0]}." for name in (variant.trunk, variant.adapt) if name is not None)
        size = sum(file.size for file in manifest.files if file.path.startswith(stems))
        yield (
            f"  variant    {variant.name}: {variant.precision}, {'/'.join(variant.runtime)} on "
            f"{'/'.join(variant.devices)}, {size / 2**20:.1f} MiB"
        )
        if variant.float_layers:
            yield f"             in float: {', '.join(variant.float_layers)}"


def _input(spec: InputSpec) -> str:
    if spec.size is not None:
        return f"{spec.size[1]}x{spec.size[0]}"
    return f"{spec.resize} side {spec.side}, multiple of {spec.multiple}"

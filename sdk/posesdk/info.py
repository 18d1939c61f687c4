"""A bundle in words."""

from collections.abc import Iterator

from posesdk.bundle import Bundle
from posesdk.manifest import Manifest
from posesdk.spec import InputSpec

__all__ = ["describe"]


def describe(bundle: Bundle) -> Iterator[str]:
    """Lines that tell what a bundle holds."""
    manifest = bundle.manifest
    spec = manifest.model
    made = f", made {manifest.created}" if manifest.created else ""
    yield f"{manifest.id} {manifest.version}{made}"
    yield f"  model      {spec.method}, {spec.backbone.kind} backbone, adaptation {spec.adaptation.level}"
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

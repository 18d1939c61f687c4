"""Settings of the data sets and of the loader."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from posesdk.skeleton import Skeleton
from posesdk_training.data.formats import Format
from posesdk_training.data.model_skeleton import optional_skeleton
from posesdk_training.settings.section import Positive, Section

__all__ = ["URL", "DataConfig", "DatasetConfig"]

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""How a source starts that is no path. A single letter and a colon is a drive."""


class DatasetConfig(Section):
    """One COCO-format annotation file with its image folder, or the `shards` that were made of them.

    A set of `images` without annotations has no labels: a `teacher` alone says what is in its pictures.
    `shards` is a folder that `posesdk-train shard` wrote, the path or URL of its index.json, or a pattern of tar files
    with braces (`set-{000000..000119}.tar`), which may be URLs that webdataset opens (http:, https:, pipe: ...).
    `format` is that of the annotation file; "auto" looks into it. `skeleton` (a name, a file or a mapping, see
    `data.skeletons`) is that of the annotations and wins over the file's own; `categories` names those of persons, by
    default all that declare keypoints. Keypoints become the model's by their names.
    `annotated_keypoints` names the keypoints that this set labels at all (None: every one); the heatmaps of the others
    are masked. `supervised_window`: only the box of each labelled person, grown by this fraction of its long side on
    each side, is supervised, for sets in which other people stand unlabelled (None: the whole image).
    `only_with_persons` leaves out the images without any person annotation. `description` says where the photos come
    from and under which licence, for the model's bundle.
    """

    name: str
    annotations: Path | None = None
    images: Path | None = None
    shards: str | None = None
    format: Format = "auto"
    skeleton: Annotated[Skeleton | None, BeforeValidator(optional_skeleton)] = None
    categories: tuple[str, ...] | None = None
    annotated_keypoints: tuple[str, ...] | None = None
    supervised_window: Annotated[float, Field(ge=0)] | None = None
    only_with_persons: bool = False
    description: str = ""

    @model_validator(mode="after")
    def _check_source(self) -> "DatasetConfig":
        given = [name for name in ("annotations", "images", "shards") if getattr(self, name) is not None]
        if given not in (["annotations", "images"], ["images"], ["shards"]):
            raise ValueError(
                f"data set {self.name!r} takes either annotations and images, or images alone, or shards; "
                f"got {given or 'none of them'}"
            )
        return self

    @property
    def is_labelled(self) -> bool:
        """Whether the set has annotations; images alone are for a teacher."""
        return self.annotations is not None or self.shards is not None


class DataConfig(Section):
    """The sets, and how their samples are loaded.

    `cache_images` keeps decoded images, up to `cache_gib` in all loader processes of a rank together.
    `shuffle_buffer`: among so many samples of a set in shards, in each loader process, the next one is drawn.
    `resident` keeps all photos in the memory of the training device and makes the samples there (docs/training-gpu.md);
    `pack` names the files of `posesdk-train pack` that it then reads in place of the sets' own.
    """

    sets: tuple[DatasetConfig, ...]
    workers: Annotated[int, Field(ge=0)] = 2
    cache_images: bool = False
    cache_gib: Positive = 4.0
    shuffle_buffer: Annotated[int, Field(ge=1)] = 1000
    resident: bool = False
    pack: tuple[Path, ...] = ()

    @model_validator(mode="after")
    def _check_pack(self) -> "DataConfig":
        if self.pack and not self.resident:
            raise ValueError("pack holds the photos of resident data alone: set resident to true")
        return self

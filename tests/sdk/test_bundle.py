"""A bundle is what its manifest says, or it is refused.

Long, because every way in which a bundle can be wrong is made by hand here and stands as a row of its own.
"""

import hashlib
import json
import logging
import os
import stat
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posesdk.bundle import (
    GOLDEN_EXPECTED,
    GOLDEN_IMAGE,
    Licence,
    Manifest,
    Variant,
    build_manifest_files,
    default_bundle_path,
    open_bundle,
    write_bundle,
    write_manifest,
)
from posesdk.bundle_cache import CACHE_VARIABLE, cache_folder
from posesdk.spec import ModelSpec
from posesdk_runtimes.errors import BundleError

TRUNK, ADAPT = "portable/trunk.onnx", "portable/adapt.onnx"
PERSON = {"id": None, "score": 0.5, "box": [0, 0, 9, 9], "keypoints": [[k, 2 * k, 0.25] for k in range(17)]}


def make_manifest(folder: Path) -> Manifest:
    return Manifest(
        id="tiny",
        version="1.0",
        model=ModelSpec(name="tiny"),
        created="2026-01-02T03:04:05Z",
        variants=(Variant(name="portable-fp32", trunk=TRUNK, adapt=ADAPT),),
        files=build_manifest_files(folder),
        licence=Licence(code="Apache-2.0", weights="CC-BY-4.0", training_data=("synthetic",)),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "tiny"
    contents = {
        TRUNK: bytes(range(256)) * 300,
        ADAPT: b"adapt",
        "cpu/trunk.xml": b"<net/>",
        "cpu/trunk.bin": b"weights",
        GOLDEN_IMAGE: b"png",
        GOLDEN_EXPECTED: json.dumps({"v": 1, "persons": [PERSON]}).encode(),
    }
    for name, data in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    write_manifest(root, make_manifest(root))
    return root


@pytest.fixture
def packed(folder: Path, tmp_path: Path) -> Path:
    return write_bundle(folder, tmp_path / "tiny.posebundle")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def edit_manifest(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("kind", ["folder", "packed"])
def test_a_written_bundle_reads_back_the_same(request: pytest.FixtureRequest, folder: Path, kind: str) -> None:
    path: Path = request.getfixturevalue(kind)
    bundle = open_bundle(str(path))
    assert bundle.path == path
    assert bundle.manifest == make_manifest(folder)
    assert bundle.spec == ModelSpec(name="tiny")
    for name in (TRUNK, ADAPT, "cpu/trunk.bin"):
        assert bundle.read(name) == (folder / name).read_bytes()
        assert bundle.local_path(name).read_bytes() == (folder / name).read_bytes()


def test_packing_gives_the_same_bytes_whatever_the_time_stamps(folder: Path, packed: Path, tmp_path: Path) -> None:
    os.utime(folder / TRUNK, (0, 0))
    (folder / ADAPT).chmod(0o600)
    assert write_bundle(folder, tmp_path / "again.posebundle").read_bytes() == packed.read_bytes()


def test_packing_stores_every_file_readable_by_plain_zip_tools(folder: Path, packed: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names[0] == "manifest.json"
    assert names[1:] == sorted(files - {"manifest.json"})


def test_packing_a_broken_folder_keeps_the_bundle_that_was_there(folder: Path, packed: Path) -> None:
    before = packed.read_bytes()
    (folder / ADAPT).write_bytes(b"other")
    with pytest.raises(BundleError, match="sha256"):
        write_bundle(folder, packed)
    assert packed.read_bytes() == before
    assert sorted(path.name for path in packed.parent.iterdir()) == ["tiny", "tiny.posebundle"]


def test_listed_files_have_the_size_and_digest_that_hashlib_gives(folder: Path) -> None:
    listed = {file.path: (file.size, file.sha256) for file in build_manifest_files(folder)}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != "manifest.json":
            data = path.read_bytes()
            assert listed.pop(name) == (len(data), hashlib.sha256(data).hexdigest())
    assert listed == {}


def test_golden_holds_the_image_and_the_expected_poses(packed: Path) -> None:
    golden = open_bundle(packed).golden()
    assert golden is not None
    assert golden.image == b"png"
    np.testing.assert_array_equal(golden.keypoints, [[[k, 2 * k] for k in range(17)]])
    np.testing.assert_array_equal(golden.keypoint_scores, np.full((1, 17), 0.25))
    np.testing.assert_array_equal(golden.scores, [0.5])


def test_golden_without_people_keeps_its_shapes(folder: Path) -> None:
    (folder / GOLDEN_EXPECTED).write_text('{"persons": []}')
    write_manifest(folder, make_manifest(folder))
    golden = open_bundle(folder).golden()
    assert golden is not None
    assert (golden.keypoints.shape, golden.keypoint_scores.shape, golden.scores.shape) == ((0, 17, 2), (0, 17), (0,))


@pytest.mark.parametrize("text", ["[]", "{", '{"persons": [{"score": 1, "keypoints": [[1, 2, 3]]}]}', '{"persons": 3}'])
def test_golden_poses_of_another_model_are_refused(folder: Path, text: str) -> None:
    (folder / GOLDEN_EXPECTED).write_text(text)
    write_manifest(folder, make_manifest(folder))
    with pytest.raises(BundleError, match=r"golden/expected\.json"):
        open_bundle(folder).golden()


def test_a_bundle_without_golden_files_has_none(folder: Path) -> None:
    (folder / GOLDEN_IMAGE).unlink()
    write_manifest(folder, make_manifest(folder))
    assert open_bundle(folder).golden() is None


def test_a_place_that_may_not_be_looked_at_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *, follow_symlinks: bool = True) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(BundleError, match=r"cannot open bundle .*x\.posebundle: Permission denied"):
        open_bundle(tmp_path / "x.posebundle")


def test_a_file_that_the_bundle_does_not_have_is_named_with_those_it_has(packed: Path) -> None:
    for ask in (open_bundle(packed).read, open_bundle(packed).local_path):
        with pytest.raises(BundleError, match=r"no file 'trunk.onnx'; it has .*portable/trunk\.onnx"):
            ask("trunk.onnx")


@pytest.mark.parametrize("kind", ["folder", "packed"])
def test_a_file_that_changes_after_opening_is_noticed(
    request: pytest.FixtureRequest, folder: Path, tmp_path: Path, kind: str
) -> None:
    path: Path = request.getfixturevalue(kind)
    bundle = open_bundle(path)
    (folder / ADAPT).write_bytes(b"other")
    if kind == "packed":
        write_manifest(folder, make_manifest(folder))
        write_bundle(folder, path)
        with pytest.raises(BundleError, match=f"{ADAPT}.*changed"):
            bundle.local_path(ADAPT)
    with pytest.raises(BundleError, match=f"{ADAPT}.*changed"):
        bundle.read(ADAPT)


def test_content_is_found_behind_a_field_that_only_the_entry_itself_has(folder: Path, tmp_path: Path) -> None:
    padded, contents = tmp_path / "padded.posebundle", {}
    with zipfile.ZipFile(padded, "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            contents[name] = path.read_bytes()
            with archive.open(name, "w", force_zip64=True) as entry:
                entry.write(contents[name])
        assert not any(entry.extra for entry in archive.infolist())
    assert b"trunk.onnx\x01\x00\x10\x00" in padded.read_bytes()  # APPNOTE 4.5.3, in the local header
    opened = open_bundle(padded)
    assert all(opened.read(file.path) == contents[file.path] for file in opened.manifest.files)


def test_the_default_bundle_opens_or_its_absence_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = Path(__file__).parents[2] / "sdk" / "posesdk" / "models" / "default.posebundle"
    if shipped.exists():
        assert default_bundle_path() == shipped
        assert open_bundle(default_bundle_path()).golden() is not None
    monkeypatch.setattr("posesdk.bundle.models_folder", lambda: tmp_path)
    with pytest.raises(BundleError, match="holds no default model"):
        default_bundle_path()


def test_a_folder_needs_no_cache(folder: Path, cache: Path) -> None:
    assert open_bundle(folder).local_path(TRUNK) == folder / TRUNK
    assert not cache.exists()


def test_a_zipped_file_is_copied_once_under_its_digest(packed: Path, cache: Path) -> None:
    bundle = open_bundle(packed)
    path = bundle.local_path(TRUNK)
    before = path.stat()
    assert path == cache / "bundles" / hashlib.sha256(bundle.read(TRUNK)).hexdigest() / "trunk.onnx"
    assert open_bundle(packed).local_path(TRUNK).stat() == before


def test_openvino_weights_lie_beside_their_graph(packed: Path) -> None:
    path = open_bundle(packed).local_path("cpu/trunk.xml")
    assert path.with_suffix(".bin").read_bytes() == b"weights"


@pytest.mark.parametrize("damage", [b"", b"x" * 76800], ids=["cut short", "same size"])
def test_a_damaged_copy_is_made_again(packed: Path, folder: Path, damage: bytes) -> None:
    bundle = open_bundle(packed)
    bundle.local_path(TRUNK).write_bytes(damage)
    assert bundle.local_path(TRUNK).read_bytes() == (folder / TRUNK).read_bytes()


def test_threads_and_processes_extract_the_same_file_at_once(packed: Path, folder: Path, cache: Path) -> None:
    program = (
        "import sys; from posesdk.bundle import open_bundle; "
        f"sys.stdout.buffer.write(open_bundle({str(packed)!r}).local_path({TRUNK!r}).read_bytes())"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    others = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) for _ in range(2)
    ]
    expected = (folder / TRUNK).read_bytes()

    def extract(round: int) -> bool:
        path = open_bundle(packed).local_path(TRUNK)
        if round % 5 == 0:
            path.unlink(missing_ok=True)  # someone clears the cache
        return open_bundle(packed).local_path(TRUNK).parent == path.parent

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(extract, range(64)))
    assert [process.communicate()[0] == expected for process in others] == [True, True]
    assert open_bundle(packed).local_path(TRUNK).read_bytes() == expected
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["trunk.onnx"]


def test_cache_folder_is_the_named_one_then_xdg_then_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, xdg, home = (tmp_path / name for name in ("named", "xdg", "home"))
    monkeypatch.setenv("HOME", str(home))
    assert cache_folder({CACHE_VARIABLE: str(named), "XDG_CACHE_HOME": str(xdg)}) == named
    assert cache_folder({"XDG_CACHE_HOME": str(xdg)}) == xdg / "posesdk"
    assert cache_folder({"XDG_CACHE_HOME": "relative"}) == home / ".cache" / "posesdk"
    assert cache_folder({}) == home / ".cache" / "posesdk"


def test_a_cache_that_cannot_be_written_gives_a_private_temporary_folder(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "occupied").write_bytes(b"")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "occupied" / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with caplog.at_level(logging.WARNING):
        path = open_bundle(packed).local_path(TRUNK)
    assert CACHE_VARIABLE in caplog.text
    root = tmp_path / "temporary" / path.relative_to(tmp_path / "temporary").parts[0]
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert open_bundle(packed).local_path(TRUNK) == path


def test_a_temporary_folder_that_others_may_write_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", "relative")
    first = cache_folder({})
    first.chmod(0o777)
    assert cache_folder({}) != first


def set_files(*paths: str) -> Callable[[Path], None]:
    def change(content: dict[str, Any]) -> None:
        content["files"] += [{"path": path, "size": 1, "sha256": "0" * 64} for path in paths]

    return lambda root: edit_manifest(root, change)


def set_value(key: str, value: object) -> Callable[[Path], None]:
    return lambda root: edit_manifest(root, lambda content: content.update({key: value}))


def set_variant(**values: object) -> Callable[[Path], None]:
    return lambda root: edit_manifest(root, lambda content: content["variants"][0].update(values))


def replace_by_link(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        outside = (root / name).rename(root.parent / "outside")
        (root / name).symlink_to(outside)

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def put(name: str, data: bytes) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / name).write_bytes(data)

    return change


BAD_FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no manifest": (remove("manifest.json"), r"'manifest\.json' is missing"),
    "manifest is no JSON": (put("manifest.json", b"{"), "not JSON"),
    "manifest is no object": (put("manifest.json", b"[1]"), "schema version None"),
    "manifest is no text": (put("manifest.json", b"\xff\xfe\x00"), "not JSON"),
    "manifest is nested without end": (put("manifest.json", b"[" * 100_000), "not JSON"),
    "manifest is huge": (put("manifest.json", b" " * (5 << 20)), r"'manifest\.json' has 5242880 bytes"),
    "manifest is a link": (replace_by_link("manifest.json"), r"'manifest\.json' is a link"),
    "newer schema": (set_value("schema_version", 2), "schema version 2.*upgrade posesdk"),
    "newer posesdk": (
        set_value("needs", "99.1"),
        r"needs posesdk 99\.1 or newer.*'posesdk>=99\.1'",
    ),
    "no version": (set_value("needs", "new"), "needs: String should match"),
    "unknown field": (set_value("surprise", 1), "surprise: Extra inputs"),
    "no variants": (set_value("variants", []), "variants"),
    "bad time stamp": (set_value("created", "yesterday"), "created"),
    "accuracy of nothing": (
        set_value("accuracy", [{"variant": "int8", "dataset": "d", "images": 1, "metrics": {"AP": 0.5}}]),
        "accuracy is given for 'int8'",
    ),
    "broken model": (set_value("model", {"name": "x", "method": "magic"}), "model.method"),
    "variant without its graph": (set_variant(trunk="cpu/none.onnx"), "'portable-fp32' names 'cpu/none.onnx'"),
    "variant called float": (set_variant(name="float"), "'float' stands twice"),
    "absolute path": (set_files("/etc/passwd"), "'/etc/passwd' is an absolute path"),
    "drive letter": (set_files("C:x"), "'C:x' is an absolute path"),
    "parent folder": (set_files("cpu/../../x"), r"'cpu/\.\./\.\./x' holds an empty part"),
    "empty part": (set_files("cpu//x"), "'cpu//x' holds an empty part"),
    "backslash": (set_files("..\\x"), "holds a backslash"),
    "unprintable name": (set_files("a\nb"), "cannot be printed"),
    "duplicate": (set_files(TRUNK), f"file '{TRUNK}' stands twice"),
    "manifest lists itself": (set_files("manifest.json"), r"'manifest\.json' stands twice"),
    "listed but missing": (remove(ADAPT), f"'{ADAPT}' is listed in the manifest but missing"),
    "not listed": (put("cpu/extra.bin", b""), r"'cpu/extra\.bin' is not listed"),
    "other size": (put(ADAPT, b"longer"), f"'{ADAPT}' has 6 bytes, its manifest says 5"),
    "other content": (put(ADAPT, b"adapT"), f"'{ADAPT}' has sha256 [0-9a-f]{{64}}"),
    "linked file": (replace_by_link(TRUNK), f"'{TRUNK}' is a link"),
    "linked folder": (replace_by_link("portable"), "'portable' is a link"),
    "pipe": (lambda root: os.mkfifo(root / "pipe"), "'pipe' is neither"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_a_spoilt_folder_is_refused(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    open_bundle(folder)
    spoil(folder)
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(folder)
    assert str(folder) in str(caught.value)
    assert ";" in str(caught.value), "says what to do"


Entry = tuple[str, bytes]


def pack_by_hand(path: Path, entries: list[Entry], spoil: Callable[[zipfile.ZipInfo], None], last: Entry) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of duplicate names
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in entries:
                archive.writestr(zipfile.ZipInfo(name), data)
            entry = zipfile.ZipInfo(last[0])
            entry.external_attr = 0o100644 << 16
            before, after = entry.compress_type, entry.flag_bits
            spoil(entry)
            flags, entry.flag_bits = entry.flag_bits, after
            archive.writestr(entry, last[1], compress_type=entry.compress_type if entry.compress_type != before else 0)
            archive.infolist()[-1].flag_bits |= flags


def nothing(entry: zipfile.ZipInfo) -> None:
    pass


def attribute(**values: int) -> Callable[[zipfile.ZipInfo], None]:
    def change(entry: zipfile.ZipInfo) -> None:
        for key, value in values.items():
            setattr(entry, key, value)

    return change


BAD_ENTRIES: dict[str, tuple[Callable[[zipfile.ZipInfo], None], Entry, str]] = {
    "absolute path": (nothing, ("/x", b"1"), "'/x' is an absolute path"),
    "parent folder": (nothing, ("../x", b"1"), r"'\.\./x' holds an empty part"),
    "folder outside": (nothing, ("../", b""), r"'\.\.' holds an empty part"),
    "backslash": (nothing, ("a\\..\\x", b"1"), "holds a backslash"),
    "duplicate": (nothing, (TRUNK, b"1"), f"'{TRUNK}' stands in the archive twice"),
    "second manifest": (nothing, ("manifest.json", b"{}"), r"'manifest\.json' stands in the archive twice"),
    "not listed": (nothing, ("extra", b"1"), "'extra' is not listed"),
    "link": (attribute(external_attr=(stat.S_IFLNK | 0o777) << 16), ("extra", b"/etc/passwd"), "'extra' is a link"),
    "device": (attribute(external_attr=(stat.S_IFCHR | 0o666) << 16), ("extra", b""), "'extra' is neither"),
    "compressed": (attribute(compress_type=zipfile.ZIP_DEFLATED), ("extra", b"0" * 999), "'extra' is compressed"),
    "encrypted": (attribute(flag_bits=0x1), ("extra", b"1"), "'extra' is encrypted"),
}


@pytest.mark.parametrize(("spoil", "last", "message"), BAD_ENTRIES.values(), ids=BAD_ENTRIES)
def test_a_spoilt_archive_is_refused(
    folder: Path, tmp_path: Path, spoil: Callable[[zipfile.ZipInfo], None], last: Entry, message: str
) -> None:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    entries = [(name, (folder / name).read_bytes()) for name in names]
    good, bad = tmp_path / "good.posebundle", tmp_path / "bad.posebundle"
    pack_by_hand(good, entries[:-1], nothing, entries[-1])
    open_bundle(good)
    pack_by_hand(bad, entries, spoil, last)
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(bad)
    assert str(bad) in str(caught.value)


def test_folders_inside_an_archive_are_harmless(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "plain.posebundle"
    with zipfile.ZipFile(path, "w") as archive:
        for member in sorted(folder.rglob("*")):
            archive.write(member, member.relative_to(folder))
    assert open_bundle(path).manifest == make_manifest(folder)


def flip(data: bytes, index: int) -> bytes:
    return data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: b"no zip at all", id="garbage"),
        pytest.param(lambda data: data[:-30], id="cut at the end"),
        pytest.param(lambda data: data[len(data) // 2 :], id="cut at the start"),
        pytest.param(lambda data: flip(data, data.index(bytes(range(256)))), id="one bit of a file"),
        pytest.param(lambda data: flip(data, data.index(b"schema_version")), id="one bit of the manifest"),
        pytest.param(lambda data: flip(data, data.rindex(b"PK\x01\x02") + 42), id="one bit of an offset"),
    ],
)
def test_a_damaged_archive_is_refused(packed: Path, damage: Callable[[bytes], bytes]) -> None:
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(BundleError, match=r"tiny\.posebundle"):
        open_bundle(packed)


def test_no_single_damaged_byte_goes_unnoticed_or_escapes_as_another_error(packed: Path, folder: Path) -> None:
    data = packed.read_bytes()
    expected = make_manifest(folder)
    body = data.index(bytes(range(256)))
    for index in [*range(0, body, 97), *range(body + 76800, len(data), 3)]:
        packed.write_bytes(flip(data, index))
        try:
            found = open_bundle(packed).manifest
        except BundleError:
            continue
        assert found == expected, index  # time stamps, attributes and comments say nothing


def test_a_path_where_nothing_is_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"none\.posebundle: there is no such file or folder"):
        open_bundle(tmp_path / "none.posebundle")

import io
import tarfile

import numpy as np
import pytest

from posesdk_runtimes.errors import DataError
from posesdk_training.synthetic.assets import AssetFolder, opened_assets, read_fitted, read_mesh


def test_missing_assets_say_where_to_get_them(tmp_path):
    with pytest.raises(DataError, match=r"no folder of MakeHuman assets at .*nowhere.*makehumancommunity"):
        AssetFolder(tmp_path / "nowhere")


def test_incomplete_assets_name_what_lacks(tmp_path):
    (tmp_path / "base.obj").write_text("v 0 0 0\n")
    with pytest.raises(DataError, match=r"lack rigs/default\.mhskel"):
        AssetFolder(tmp_path)


def test_file_that_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "assets.tar.xz"
    path.write_text("nothing")
    with pytest.raises(DataError, match="cannot unpack"), opened_assets(path):
        pass


def test_archive_does_not_write_outside_its_folder(tmp_path):
    path = tmp_path / "inner" / "assets.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("../../escaped.txt")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(DataError, match="lack"), opened_assets(path):
        pass
    assert not list(tmp_path.rglob("escaped.txt"))


def test_polygon_becomes_triangles_of_its_group(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\ng one\nf 1/1 2/1 3/1 4/1\ng two\nf 1/1 2/1 3/1\n")
    np.testing.assert_array_equal(read_mesh(path, ("one",)).faces, [[0, 1, 2], [0, 2, 3]])
    assert len(read_mesh(path).faces) == 3


def test_fitted_mesh_has_bindings_scales_and_covered_vertices(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nf 1 2 1\n")
    path = tmp_path / "a.mhclo"
    path.write_text(
        "obj_file a.obj\nx_scale 1 2 0.5\nverts 0\n7\n1 2 3 0.2 0.3 0.5 0.1 0.2 0.3\ndelete_verts\n4 - 6 9\n"
    )
    fitted = read_fitted(path)
    np.testing.assert_array_equal(fitted.bound, [[7, 7, 7], [1, 2, 3]])
    np.testing.assert_allclose(fitted.shares, [[1, 0, 0], [0.2, 0.3, 0.5]])
    assert fitted.scale == {0: (1, 2, 0.5)}
    np.testing.assert_array_equal(fitted.covered, [4, 5, 6, 9])

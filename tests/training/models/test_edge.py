import torch
import torch.nn.functional as F

from posesdk.spec import EdgeBackboneSpec
from posesdk_training.models.edge import EdgeBackbone

TINY = EdgeBackboneSpec(stem=4, channels=(4, 8, 8, 12), blocks=(1, 1, 2, 1), neck=6)


def test_features_lie_at_stride_4():
    with torch.no_grad():
        assert EdgeBackbone(TINY).eval()(torch.randn(2, 3, 64, 96)).shape == (2, 6, 16, 24)


def test_every_stage_halves_the_resolution():
    x = torch.randn(1, 3, 64, 96)
    model = EdgeBackbone(TINY).eval()
    sizes = []
    with torch.no_grad():
        x = model.stem(x)
        for stage in model.stages:
            x = stage(x)
            sizes.append(tuple(x.shape[1:]))
    assert sizes == [(4, 16, 24), (8, 8, 12), (8, 4, 6), (12, 2, 3)]


def test_pyramid_adds_the_coarser_level_before_each_3x3():
    torch.manual_seed(1)
    model = EdgeBackbone(TINY).eval()
    images = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        x, levels = model.stem(images), []
        for stage in model.stages:
            x = stage(x)
            levels.append(x)
        s4, s8, s16, s32 = (conv(x) for conv, x in zip(model.laterals, levels, strict=True))
        merge4, merge8, merge16 = model.merges
        y16 = merge16(s16 + F.interpolate(s32, size=s16.shape[2:], mode="bilinear"))
        y8 = merge8(s8 + F.interpolate(y16, size=s8.shape[2:], mode="bilinear"))
        expected = merge4(s4 + F.interpolate(y8, size=s4.shape[2:], mode="bilinear"))
        other_frame = merge4(s4 + F.interpolate(y8, scale_factor=2, mode="bilinear", align_corners=True))
        found = model(images)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, other_frame)


def test_every_parameter_receives_a_gradient():
    torch.manual_seed(0)
    model = EdgeBackbone(TINY)
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []

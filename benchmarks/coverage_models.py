"""The networks that the package is tried on: torchvision's, a model of each family of timm's, and those of the zoo."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks.subjects import Subject, awaken_
from benchmarks.zoo_models import ZOO

# The smallest of some models of each family of timm's.
# fmt: off
TIMM = (
    "beit_base_patch16_224", "eca_botnext26ts_256", "resnext26ts", "cait_xxs24_224", "coat_tiny", "convit_tiny",
    "convmixer_768_32", "convnext_atto_rms", "cpubone_nano", "crossvit_tiny_240", "csatv2", "cs3darknet_focus_s",
    "cspnext_tiny", "davit_tiny", "deit_tiny_patch16_224", "densenet121", "dla34", "dpn48b", "edgenext_xx_small",
    "efficientformer_l1", "efficientformerv2_s0", "tinynet_e", "efficientvim_m1", "efficientvit_b0", "efficientvit_m0",
    "vit_tiny_patch16_dinov3_qkvb", "fasternet_t0", "fastvit_t12", "focalnet_tiny_srf", "gcvit_xxtiny", "ghostnet_050",
    "hardcorenas_b", "hgnetv2_b0", "hiera_tiny_224", "hrnet_w18_small", "iformer_t", "inception_next_atto",
    "inception_v3", "inception_v4", "lcnetv2_small", "levit_128", "lowformer_b0", "mambaout_femto",
    "maxvit_pico_rw_256", "poolformer_s12", "gmixer_12_224", "mobilenetv3_small_050", "mobilevit_xxs", "mvitv2_tiny",
    "nest_tiny", "nextvit_small", "nf_regnet_b0", "pit_xs_224", "pvt_v2_b0", "rdnet_tiny", "regnetx_002",
    "repghostnet_050", "repvit_m1", "res2net50_26w_4s", "resnest14d", "resnet18", "resnetv2_18", "rexnet_100",
    "selecsls42", "legacy_seresnet18", "sequencer2d_s", "shvit_s1", "skresnet18", "starnet_s050", "swiftformer_xs",
    "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_224", "tiny_vit_5m_224",
    "tnt_s_legacy_patch16_224", "tresnet_m", "twins_svt_small", "visformer_tiny", "vit_tiny_patch16_224",
    "vit_tiny_r_s16_p8_224", "vit_srelpos_small_patch16_224", "vitamin_small_224", "volo_d1_224",
    "ese_vovnet19b_slim_dw", "legacy_xception", "xception41p", "xcit_nano_12_p8_224",
)
# fmt: on

FAMILIES = ("classification", "segmentation", "detection", "video", "timm", *ZOO)


def is_installed(family: str) -> bool:
    """Whether the package is there that a family's networks come from."""
    return find_spec(module_of(family).partition(".")[0]) is not None


def module_of(family: str) -> str:
    """What a family's networks are made with."""
    return ZOO[family][0] if family in ZOO else "timm" if family == "timm" else "torchvision"


def names_of(family: str) -> list[str]:
    """The networks of a family."""
    import torchvision  # noqa: PLC0415 - the parent process needs no models where it is told their names

    if family == "timm":
        return list(TIMM)
    if family in ZOO:
        return list(ZOO[family][1])
    module = torchvision.models if family == "classification" else getattr(torchvision.models, family)
    names: list[str] = torchvision.models.list_models(module=module)
    return names


def subject(family: str, name: str) -> Subject:
    """Build one network, in eval mode, and its inputs: the same each time."""
    torch.manual_seed(0)
    if family in ZOO:
        return awaken_(ZOO[family][1][name]())
    if family == "timm":
        return _timm(name)
    import torchvision  # noqa: PLC0415 - not where timm's are asked for

    settings = {"weights": None, **({"weights_backbone": None} if family in {"segmentation", "detection"} else {})}
    model = torchvision.models.get_model(name, **settings).eval()
    if family == "detection":
        return Subject(model=model, example=([_image(320)],), others={"batch": ([_image(320), _image(320)],)})
    if family == "video":
        size = (1, 3, 16, 224, 224) if name.startswith(("mvit", "s3d", "swin")) else (1, 3, 8, 112, 112)
        return Subject(model=model, example=(torch.randn(size),), others={"batch": (torch.randn(2, *size[1:]),)})
    size = 299 if name == "inception_v3" else 224
    return _of_images(model, size)


def _timm(name: str) -> Subject:
    import timm  # noqa: PLC0415 - an extra of the tests

    model = timm.create_model(name, pretrained=False).eval()
    return _of_images(model, model.default_cfg["input_size"][-1])


def _of_images(model: nn.Module, size: int) -> Subject:
    return Subject(
        model=model,
        example=(torch.randn(1, 3, size, size),),
        others={"batch": (torch.randn(3, 3, size, size),), "size": (torch.randn(1, 3, size + 32, size + 32),)},
    )


def _image(size: int) -> Tensor:
    return torch.rand(3, size, size)

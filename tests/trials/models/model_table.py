"""Every model's number of parameters and of prunable weights, and how tests build one without computing it."""

from __future__ import annotations

import torch
from torch import nn

from trials.models import MODELS

PARAMETERS = {  # name: (all, conv and linear weights), for 10 classes and 3 channels
    "resnet18": (11_173_962, 11_164_352),
    "resnet34": (21_282_122, 21_265_088),
    "resnet50": (23_520_842, 23_467_712),
    "resnet101": (42_512_970, 42_407_616),
    "resnet152": (58_156_618, 58_005_184),
    "resnet20": (272_474, 270_896),
    "resnet20s": (269_722, 268_336),
    "resnet32s": (464_154, 461_872),
    "resnet44s": (658_586, 655_408),
    "resnet56s": (853_018, 848_944),
    "vgg16": (14_728_266, 14_715_584),
    "tiny": (19_546, 19_344),
    "wrn_28_10": (36_479_194, 36_461_232),
    "wrn_28_4": (5_849_050, 5_841_840),
    "wrn_28_1": (369_498, 367_664),
    "wrn_34_10": (46_160_474, 46_138_032),
    "wrn_40_2": (2_243_546, 2_238_128),
    "wrn_16_8": (10_965_866, 10_954_160),
    "bip_vgg2": (172_746, 172_224),
    "bip_vgg4": (459_466, 458_944),
    "bip_vgg6": (1_475_274, 1_474_752),
    "bip_vgg8": (5_276_362, 5_275_840),
    "bip_vgg11": (9_810_634, 9_810_112),
    "bip_vgg13": (9_994_954, 9_994_432),
    "bip_vgg16": (15_303_370, 15_302_848),
    "bip_vgg2_bn": (173_002, 172_224),
    "bip_vgg4_bn": (460_234, 458_944),
    "bip_vgg6_bn": (1_477_066, 1_474_752),
    "bip_vgg8_bn": (5_280_202, 5_275_840),
    "bip_vgg11_bn": (9_816_138, 9_810_112),
    "bip_vgg13_bn": (10_000_842, 9_994_432),
    "bip_vgg16_bn": (15_311_818, 15_302_848),
    "greg_vgg11": (9_228_362, 9_222_848),
    "greg_vgg13": (9_413_066, 9_407_168),
    "greg_vgg16": (14_724_042, 14_715_584),
    "greg_vgg19": (20_035_018, 20_024_000),
    "lenet5": (62_006, 61_770),
    "mlp_7_linear": (358_810, 358_200),
    "mlp_7_relu": (358_810, 358_200),
    "alexnet": (2_261_834, 2_260_672),
    "densenet121": (6_956_298, 6_872_768),
    "googlenet": (6_166_250, 6_142_528),
    "shufflenetv2": (5_338_026, 5_304_600),
    "efficientnet_b0": (3_598_598, 3_549_792),
    "ResNet18": (11_181_642, 11_172_032),
    "ResNet34": (21_289_802, 21_272_768),
    "ResNet50": (23_528_522, 23_475_392),
}


def on_meta(name: str, num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    with torch.device("meta"):
        return MODELS[name](num_classes=num_classes, in_channels=in_channels)


def prunable(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}

"""Real families of networks beside torchvision and timm, small, with random weights, built without a download.

Each entry builds one network and its inputs: what it is traced on, another batch, and another size of image, of volume
or of sequence. Where all that counts are some of its outputs, it says which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.subjects import Subject

Build = Callable[[], Subject]

# Heads of 20, so that a fifth of each is a whole number, even for a rotation.
_WIDTH = {"hidden_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
_ENCODER = {**_WIDTH, "intermediate_size": 160}
_VOCABULARY = 101
_TEXT = {**_ENCODER, "vocab_size": _VOCABULARY, "max_position_embeddings": 80}
_DECODER = {**_TEXT, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}
_HEADS = {**_DECODER, "head_dim": 20}
_EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
_PYRAMID = {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 48, 64]}
_VISION = {**_ENCODER, "image_size": 64, "patch_size": 16}
_SPEECH = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 144, "decoder_ffn_dim": 144}
_BOTH = {**_SPEECH, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "vocab_size": _VOCABULARY}
_STARTS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None, "decoder_start_token_id": 1}


def _tokens(batch: int = 1, length: int = 12) -> Tensor:
    return torch.randint(3, _VOCABULARY - 1, (batch, length))


def _text(batch: int = 1, length: int = 12) -> dict[str, Any]:
    return {"input_ids": _tokens(batch, length), "attention_mask": torch.ones(batch, length, dtype=torch.long)}


def _ids(batch: int = 1, length: int = 12) -> dict[str, Any]:
    return {"input_ids": _tokens(batch, length)}


def _pair(batch: int = 1, length: int = 12) -> dict[str, Any]:
    return {"input_ids": _tokens(batch, length), "decoder_input_ids": _tokens(batch, length - 3)}


def _pixels(batch: int = 1, side: int = 64) -> dict[str, Any]:
    return {"pixel_values": torch.randn(batch, 3, side, side)}


def _captioned(batch: int = 1, length: int = 12) -> dict[str, Any]:
    return {**_text(batch, length), **_pixels(batch)}


def _spectrum(batch: int = 1, length: int = 12) -> dict[str, Any]:
    return {"input_features": torch.randn(batch, 20, 60), "decoder_input_ids": _tokens(batch, length)}


def _sound(batch: int = 1, length: int = 1600) -> dict[str, Any]:
    return {"input_values": torch.randn(batch, length)}


def _transformer(
    model: str,
    settings: Mapping[str, Any],
    inputs: Callable[..., dict[str, Any]] = _text,
    *,
    outputs: Callable[[Any], Any] = itemgetter("logits"),
    generates: bool = False,
    larger: int | None = None,
) -> Subject:
    import transformers  # noqa: PLC0415 - one of several extras

    kind = getattr(transformers, model)
    network = kind(kind.config_class(**settings))
    sizes = {_pixels: 96, _sound: 2400}
    return Subject(
        model=network,
        example=inputs(),
        others={"batch": inputs(3), "size": inputs(1, larger or sizes.get(inputs, 20))},
        outputs=outputs,
        prompt=_tokens(2, 5) if generates else None,
    )


_causal = partial(_transformer, inputs=_ids, generates=True)


def _clip() -> Subject:
    part = {**_ENCODER, "projection_dim": 32}
    text = {**part, "vocab_size": _VOCABULARY, "max_position_embeddings": 80, "eos_token_id": 100, "bos_token_id": 1}
    settings = {"text_config": text, "vision_config": {**part, "image_size": 64, "patch_size": 16}}
    return _transformer(
        "CLIPModel", {**settings, "projection_dim": 32}, _captioned, outputs=itemgetter("logits_per_image")
    )


def _detr() -> Subject:
    import transformers  # noqa: PLC0415 - one of several extras

    backbone = transformers.ResNetConfig(
        **{**_PYRAMID, "embedding_size": 16, "layer_type": "basic"}, out_features=["stage4"]
    )
    settings = {**_BOTH, "num_queries": 10, "num_labels": 7, "backbone_config": backbone, "use_timm_backbone": False}
    return _transformer(
        "DetrForObjectDetection", settings, _pixels, outputs=itemgetter("logits", "pred_boxes"), larger=96
    )


def _gemma(model: str = "Gemma3ForCausalLM") -> Subject:
    own = {"query_pre_attn_scalar": 20, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
    return _causal(model, {**_HEADS, **own})


_HUGGING_FACE: dict[str, Build] = {
    "albert": lambda: _transformer("AlbertForSequenceClassification", {**_TEXT, "embedding_size": 32}),
    "bart": lambda: _transformer("BartForConditionalGeneration", {**_BOTH, **_STARTS}, _pair, generates=True),
    "bert": lambda: _transformer("BertForSequenceClassification", _TEXT),
    "bert masked lm": lambda: _transformer("BertForMaskedLM", _TEXT),
    "clip": _clip,
    "convnext": lambda: _transformer("ConvNextForImageClassification", _PYRAMID, _pixels),
    "convnextv2": lambda: _transformer("ConvNextV2ForImageClassification", _PYRAMID, _pixels),
    "deberta-v2": lambda: _transformer(
        "DebertaV2ForSequenceClassification",
        {**_TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 32},
    ),
    "detr": _detr,
    "dinov2": lambda: _transformer("Dinov2ForImageClassification", {**_VISION, "mlp_ratio": 2}, _pixels),
    "distilbert": lambda: _transformer(
        "DistilBertForSequenceClassification",
        {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 144, "vocab_size": _VOCABULARY},
    ),
    "electra": lambda: _transformer("ElectraForSequenceClassification", {**_TEXT, "embedding_size": 32}),
    "gemma3": _gemma,
    "gpt-neox": lambda: _causal("GPTNeoXForCausalLM", {**_TEXT, "bos_token_id": 1, "eos_token_id": None}),
    "gpt2": lambda: _causal(
        "GPT2LMHeadModel",
        {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 80, "vocab_size": _VOCABULARY}
        | {"bos_token_id": 1, "eos_token_id": None},
    ),
    "llama": lambda: _causal("LlamaForCausalLM", _DECODER),
    "mamba": lambda: _causal(
        "MambaForCausalLM", {**_WIDTH, "vocab_size": _VOCABULARY, "state_size": 8, "eos_token_id": None}
    ),
    "mamba2": lambda: _causal(
        "Mamba2ForCausalLM",
        {**_WIDTH, "vocab_size": _VOCABULARY, "state_size": 8, "num_heads": 8, "head_dim": 20, "n_groups": 2}
        | {"expand": 2, "chunk_size": 8, "eos_token_id": None},
    ),
    "mistral": lambda: _causal("MistralForCausalLM", _DECODER),
    "mixtral": lambda: _causal("MixtralForCausalLM", {**_DECODER, **_EXPERTS}),
    "mobilevit": lambda: _transformer(
        "MobileViTForImageClassification",
        {"image_size": 64, "hidden_sizes": [32, 48, 64], "neck_hidden_sizes": [8, 16, 24, 32, 48, 64, 96]}
        | {"num_attention_heads": 4},
        _pixels,
    ),
    "mpnet": lambda: _transformer("MPNetForSequenceClassification", _TEXT),
    "opt": lambda: _causal(
        "OPTForCausalLM", {**_TEXT, "ffn_dim": 144, "word_embed_proj_dim": 64, "eos_token_id": None}
    ),
    "phi3": lambda: _causal("Phi3ForCausalLM", _DECODER),
    "pvt": lambda: _transformer(
        "PvtForImageClassification",
        {**_PYRAMID, "hidden_sizes": [16, 32, 80, 64], "image_size": 64},
        _pixels,
    ),
    "qwen2": lambda: _causal("Qwen2ForCausalLM", _DECODER),
    "qwen3": lambda: _causal("Qwen3ForCausalLM", _HEADS),
    "qwen3 moe": lambda: _causal("Qwen3MoeForCausalLM", {**_HEADS, **_EXPERTS}),
    "resnet": lambda: _transformer("ResNetForImageClassification", {**_PYRAMID, "embedding_size": 16}, _pixels),
    "roberta": lambda: _transformer("RobertaForSequenceClassification", _TEXT),
    "segformer": lambda: _transformer(
        "SegformerForSemanticSegmentation", {**_PYRAMID, "decoder_hidden_size": 48, "num_labels": 5}, _pixels
    ),
    "siglip": lambda: _transformer("SiglipForImageClassification", {"vision_config": _VISION}, _pixels),
    "swin": lambda: _transformer(
        "SwinForImageClassification",
        {"image_size": 64, "patch_size": 4, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        _pixels,
    ),
    "t5": lambda: _transformer(
        "T5ForConditionalGeneration",
        {"d_model": 64, "d_kv": 16, "d_ff": 144, "num_layers": 2, "num_heads": 4, "vocab_size": _VOCABULARY, **_STARTS},
        _pair,
        generates=True,
    ),
    "vit": lambda: _transformer("ViTForImageClassification", _VISION, _pixels),
    "wav2vec2": lambda: _transformer(
        "Wav2Vec2ForCTC",
        {**_ENCODER, "vocab_size": 32, "conv_dim": [32, 32, 32], "conv_kernel": [10, 3, 3], "conv_stride": [5, 2, 2]}
        | {"num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
        _sound,
    ),
    "whisper": lambda: _transformer(
        "WhisperForConditionalGeneration",
        {**_BOTH, **_STARTS, "num_mel_bins": 20, "max_source_positions": 30, "max_target_positions": 80},
        _spectrum,
    ),
}


def _images(model: nn.Module, side: int, *, channels: int = 3, larger: int | None = None, **settings: Any) -> Subject:
    def image(batch: int, side: int) -> tuple[Tensor]:
        return (torch.rand(batch, channels, side, side),)

    others = {"batch": image(3, side), "size": image(1, larger or side + 32)}
    return Subject(model=model, example=image(1, side), others=others, **settings)


def _detector(name: str, task: str = "Detection") -> Subject:
    from ultralytics.nn import tasks  # noqa: PLC0415 - one of several extras

    # What a detector puts out in eval mode: its boxes, then its feature maps, which only a loss reads.
    outputs = None if task == "Classification" else lambda out: out[0] if isinstance(out, tuple) else out
    return _images(getattr(tasks, f"{task}Model")(f"{name}.yaml", verbose=False), 96, larger=128, outputs=outputs)


_ULTRALYTICS: dict[str, Build] = {
    **{name: partial(_detector, name) for name in ("yolov8n", "yolov10n", "yolo11n", "yolo12n", "yolo26n")},
    **{f"{name}-seg": partial(_detector, f"{name}-seg", "Segmentation") for name in ("yolov8n", "yolo11n", "yolo26n")},
    **{f"{name}-cls": partial(_detector, f"{name}-cls", "Classification") for name in ("yolov8n", "yolo11n")},
    "yolo11n-pose": partial(_detector, "yolo11n-pose", "Pose"),
    "yolo11n-obb": partial(_detector, "yolo11n-obb", "OBB"),
    "rtdetr-resnet50": partial(_detector, "rtdetr-resnet50", "RTDETRDetection"),
}


def _segmenter(decoder: str, encoder: str = "resnet18", side: int = 64) -> Subject:
    import segmentation_models_pytorch as smp  # noqa: PLC0415 - one of several extras

    return _images(getattr(smp, decoder)(encoder, encoder_weights=None, classes=5), side)


_DECODERS = ("DeepLabV3", "DeepLabV3Plus", "FPN", "Linknet", "MAnet", "PSPNet", "Segformer")
_SMP: dict[str, Build] = {
    **{name: partial(_segmenter, name) for name in (*_DECODERS, "UPerNet", "Unet", "UnetPlusPlus")},
    "DPT": partial(_segmenter, "DPT", "tu-vit_tiny_patch16_224", 224),
    "PAN": partial(_segmenter, "PAN", side=128),
    "Unet mobilenet": partial(_segmenter, "Unet", "mobilenet_v2"),
    "Unet efficientnet": partial(_segmenter, "Unet", "efficientnet-b0"),
}


def _denoiser(kind: str, *, side: int = 16, channels: int = 4, **settings: Any) -> Subject:
    import diffusers  # noqa: PLC0415 - one of several extras

    given: Mapping[str, Callable[[int], Any]] = {
        "UNet2DConditionModel": lambda batch: {"encoder_hidden_states": torch.randn(batch, 7, 32)},
        "DiTTransformer2DModel": lambda batch: {"class_labels": torch.arange(batch)},
    }
    more = given.get(kind, lambda _: {})

    def inputs(batch: int, side: int) -> dict[str, Any]:
        hidden = "hidden_states" if "Transformer" in kind else "sample"
        time = {} if kind.startswith("Autoencoder") else {"timestep": torch.full((batch,), 7)}
        return {hidden: torch.randn(batch, channels, side, side), **time, **more(batch)}

    return Subject(
        model=getattr(diffusers, kind)(**settings),
        example=inputs(1, side),
        others={"batch": inputs(3, side), "size": inputs(1, 2 * side)},
        outputs=itemgetter("sample"),
    )


_LATENT = {"in_channels": 4, "out_channels": 4, "block_out_channels": (32, 64), "norm_num_groups": 8}
_DIFFUSERS: dict[str, Build] = {
    "UNet2D": lambda: _denoiser(
        "UNet2DModel",
        **_LATENT,
        layers_per_block=1,
        attention_head_dim=16,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ),
    "UNet2DCondition": lambda: _denoiser(
        "UNet2DConditionModel",
        **_LATENT,
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    ),
    "AutoencoderKL": lambda: _denoiser(
        "AutoencoderKL",
        channels=3,
        side=32,
        **{**_LATENT, "in_channels": 3, "out_channels": 3},
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ),
    "DiT": lambda: _denoiser(
        "DiTTransformer2DModel",
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        sample_size=16,
        patch_size=2,
        num_embeds_ada_norm=10,
    ),
}


def _volumes(kind: str, side: int = 32, **settings: Any) -> Subject:
    import monai.networks.nets  # noqa: PLC0415 - one of several extras

    def volume(batch: int, side: int) -> tuple[Tensor]:
        return (torch.randn(batch, 1, side, side, side),)

    return Subject(
        model=getattr(monai.networks.nets, kind)(in_channels=1, out_channels=3, **settings),
        example=volume(1, side),
        others={"batch": volume(2, side), "size": volume(1, side + 32)},
    )


_MONAI: dict[str, Build] = {
    "UNet": lambda: _volumes("UNet", spatial_dims=3, channels=(16, 32, 64), strides=(2, 2), num_res_units=2),
    "SegResNet": lambda: _volumes("SegResNet", spatial_dims=3, init_filters=16, blocks_down=(1, 1), blocks_up=(1,)),
    "DynUNet": lambda: _volumes(
        "DynUNet",
        spatial_dims=3,
        filters=(16, 32, 64),
        kernel_size=(3, 3, 3),
        strides=(1, 2, 2),
        upsample_kernel_size=(2, 2),
    ),
    "SwinUNETR": lambda: _volumes("SwinUNETR", 64, feature_size=12, depths=(1, 1, 1, 1), num_heads=(2, 2, 2, 2)),
    "UNETR": lambda: _volumes("UNETR", img_size=(32, 32, 32), feature_size=8, hidden_size=64, mlp_dim=144, num_heads=4),
}

# What each family's networks are made with, which takes seconds to import, and the networks.
ZOO: dict[str, tuple[str, dict[str, Build]]] = {
    "transformers": ("transformers.modeling_utils", _HUGGING_FACE),
    "ultralytics": ("ultralytics.nn.tasks", _ULTRALYTICS),
    "segmentation-models": ("segmentation_models_pytorch", _SMP),
    "diffusers": ("diffusers.models.modeling_utils", _DIFFUSERS),
    "monai": ("monai.networks.nets", _MONAI),
}

"""VideoUNet: a Stable Diffusion U-Net that sees clips.

The network is diffusers' `UNet2DConditionModel`, weight for weight; the forward pass is restated here, so that a
temporal mechanism stands inside it in plain sight (hooks are invisible to torch.compile's guards).

Axes: B clips, F frames, N = B·F, C channels, H and W latent height and width, L text tokens, D text width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_blocks import (
    CrossAttnDownBlock2D,
    CrossAttnUpBlock2D,
    DownBlock2D,
    UNetMidBlock2DCrossAttn,
    UpBlock2D,
)
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from timeloom.errors import TimeloomError, unknown_name
from timeloom.model_files import quiet_libraries
from timeloom.models.shift import ShiftMechanism
from timeloom.models.space_time import SwapMechanism
from timeloom.models.swap_options import SwapOptions
from timeloom.models.temporal import AttentionMechanism
from timeloom.models.temporal_mechanism import INPUT, Layer, Place, Stage, TemporalMechanism
from timeloom.schema import check

SUPPORTED_BLOCKS = (DownBlock2D, CrossAttnDownBlock2D, UNetMidBlock2DCrossAttn, UpBlock2D, CrossAttnUpBlock2D)

OTHER_FAMILIES = (
    "addition_embed_type",
    "class_embed_type",
    "num_class_embeds",
    "encoder_hid_dim_type",
    "encoder_hid_dim",
    "time_embedding_act_fn",
)
"""Options of diffusers' U-Net for conditions that Stable Diffusion 1.x/2.x does not have."""

MECHANISM = "temporal_mechanism."
"""Prefix of the tensors of a temporal mechanism."""

MECHANISMS: dict[str, Callable[[Any, list[Layer]], TemporalMechanism]] = {
    "none": lambda config, layers: TemporalMechanism(),
    "shift": lambda config, layers: ShiftMechanism(config.shift_fraction, config.shift_placement),
    "attention": lambda config, layers: AttentionMechanism(layers),
    "swap": lambda config, layers: SwapMechanism(SwapOptions(**config.swap), layers, config.norm_num_groups),
}
"""How each value of the `temporal` option is built from the network's config and its layers."""


class ClipTextAttention:
    """Attention of all frames of a clip to one text: keys and values are computed once a clip, not once a frame.

    An attention processor for diffusers' cross-attention layers, on PyTorch's scaled dot product. The frames of a clip
    are laid end to end on the query axis, so nothing is ever repeated.
    """

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **unused: object
    ) -> Tensor:
        """(B·F, H·W, C) asks, (B, L, D) answers: (B·F, H·W, C)."""
        if attn.norm_cross:
            encoder_hidden_states = attn.norm_encoder_hidden_states(encoder_hidden_states)
        clips = encoder_hidden_states.shape[0]
        frames, pixels, _ = hidden_states.shape
        query = attn.to_q(hidden_states).reshape(clips, frames // clips * pixels, attn.heads, -1).transpose(1, 2)
        key = attn.to_k(encoder_hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        value = attn.to_v(encoder_hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(query, key, value)
        mixed = mixed.transpose(1, 2).reshape(frames, pixels, -1)
        return attn.to_out[1](attn.to_out[0](mixed))


def _signature_with(parent: Callable[..., None], own: Callable[..., None]) -> inspect.Signature:
    """The parent's parameters followed by our own: diffusers reads a config's keys from the signature."""
    parameters = list(inspect.signature(parent).parameters.values())
    ours = inspect.signature(own).parameters.values()
    return inspect.Signature(parameters + [parameter for parameter in ours if parameter.kind is parameter.KEYWORD_ONLY])


class VideoUNet(UNet2DConditionModel):
    """A Stable Diffusion 1.x/2.x U-Net over clips, with one of several temporal mechanisms.

    Takes the arguments of diffusers' `UNet2DConditionModel` and:

    Args:
        temporal: "none" (every frame on its own), "shift" (Latent-Shift, no new parameter), "attention" (Latent-VDM, an
            attention over time after each spatial transformer) or "swap" (VideoFactory, a module over time beside each
            spatial one, joined by Swap-CA).
        shift_fraction: share of the channels that the shift takes from each neighbouring frame.
        shift_placement: "residual_end" (the paper's Fig. 3d) or "residual_start" (before the first convolution).
        swap: options of "swap" that differ from their defaults (`SwapOptions`); the config tells them all.

    Raises:
        TimeloomError: an unknown mechanism or placement, an option out of range, or a config that is not of
            Stable Diffusion 1.x/2.x.
    """

    def __init__(
        self,
        *args: Any,
        temporal: str = "none",
        shift_fraction: float = 0.25,
        shift_placement: str = "residual_end",
        swap: dict[str, Any] | None = None,
        **unet: Any,
    ) -> None:
        super().__init__(*args, **unet)
        if temporal not in MECHANISMS:
            raise unknown_name("temporal mechanism", temporal, MECHANISMS)
        if shift_placement not in ("residual_start", "residual_end"):
            raise unknown_name("shift placement", shift_placement, ("residual_start", "residual_end"))
        if not 0.0 <= shift_fraction <= 0.5:
            raise TimeloomError(
                f"shift_fraction must lie in [0, 0.5], a share for each neighbour, not {shift_fraction}."
            )
        if temporal == "swap":
            swap = check(SwapOptions, swap or {}, Path("swap")).model_dump(mode="json")
        self.register_to_config(swap=swap if temporal == "swap" else None)
        self._require_stable_diffusion()
        self.temporal_mechanism = self._new_mechanism()
        self.gradient_checkpointing = False
        for module in self.modules():
            if isinstance(module, Attention) and module.is_cross_attention:
                module.set_processor(ClipTextAttention())

    __init__.__signature__ = _signature_with(UNet2DConditionModel.__init__, __init__)  # type: ignore[attr-defined]
    __init__ = register_to_config(__init__)

    def _blocks(self) -> Iterator[tuple[Stage, int, Any]]:
        """(stage, level, block), in the order of the forward pass."""
        yield from (("encoder", level, block) for level, block in enumerate(self.down_blocks))
        yield "middle", 0, self.mid_block
        yield from (("decoder", level, block) for level, block in enumerate(self.up_blocks))

    def _new_mechanism(self) -> TemporalMechanism:
        channels = self.config.block_out_channels
        heads = self.config.num_attention_heads or self.config.attention_head_dim  # diffusers' name: it is their number
        heads = [heads] * len(channels) if isinstance(heads, int) else list(heads)
        levels = {"encoder": heads, "middle": heads[-1:], "decoder": heads[::-1]}
        layers = [Layer(INPUT, channels[0], heads[0])]
        for stage, level, block in self._blocks():
            for resnet, resnet_place, transformer, transformer_place in _layers(stage, level, block):
                layers.append(Layer(resnet_place, resnet.out_channels, levels[stage][level]))
                if transformer is not None:
                    layers.append(Layer(transformer_place, resnet.out_channels, levels[stage][level]))
        return MECHANISMS[self.config.temporal](self.config, layers)

    def _require_stable_diffusion(self) -> None:
        """Refuse what the forward pass below would leave out without a word."""
        for _, _, block in self._blocks():
            if not isinstance(block, SUPPORTED_BLOCKS):
                raise TimeloomError(
                    "VideoUNet is built of Stable Diffusion 1.x/2.x blocks, and this network has a "
                    f"{type(block).__name__}."
                )
            parts: tuple[Any, ...] = (*block.resnets, *getattr(block, "attentions", ()))
            for part in parts:
                if not isinstance(part, (ResnetBlock2D, Transformer2DModel)):
                    raise TimeloomError(f"VideoUNet has no place for this network's {type(part).__name__}.")
        for option in OTHER_FAMILIES:
            if self.config[option]:
                raise TimeloomError(
                    "VideoUNet takes latents, a time step and one text; this network's config says "
                    f"{option}={self.config[option]!r}, a condition of another family (SDXL has some)."
                )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Load a U-Net folder strictly: safetensors alone, with every tensor of the network and no other.

        Takes the arguments of diffusers' method, and those of `__init__` that are to differ from the folder's config.
        All tensors of the temporal mechanism may be missing (an image model's folder), or all of one of its modules
        that changes nothing at first: they begin afresh. With `output_loading_info=True` the report comes back beside
        the network, and judging it is the caller's.

        Raises:
            TimeloomError: the folder cannot be read, or a tensor is missing, extra or of another shape.
        """
        want_info = kwargs.pop("output_loading_info", False)
        options = {"use_safetensors": True, "ignore_mismatched_sizes": True, **kwargs, "output_loading_info": True}
        try:
            with quiet_libraries():  # what is missing and may be is no cause for a warning
                model, info = super().from_pretrained(pretrained_model_name_or_path, **options)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise TimeloomError(f"Cannot load the unet in {pretrained_model_name_or_path}: {reason}") from error
        missing = set(info["missing_keys"])
        mismatched = {name for name, _, _ in info["mismatched_keys"]}
        if fresh := model.keys_that_begin(missing):
            model._initialise(missing | mismatched)
            missing -= fresh
        if want_info:
            return model, info
        for name, found, wanted in sorted(info["mismatched_keys"]):
            raise TimeloomError(
                f"The U-Net in {pretrained_model_name_or_path} has a tensor of another shape than asked for, {name!r}: "
                f"{tuple(found)}, not {tuple(wanted)}. A model goes on with the options that it was made with."
            )
        problems = (
            ("missing", sorted(missing)),
            ("unknown to the network", info["unexpected_keys"]),
        )
        for problem, keys in problems:
            if keys:
                found = f"{len(keys)} tensor(s) {problem}, first {min(keys)!r}"
                raise TimeloomError(f"The U-Net in {pretrained_model_name_or_path} has {found}.")
        return model

    def keys_that_begin(self, missing: set[str]) -> set[str]:
        """Of tensors that a source lacks, those that training may begin with: all of the temporal mechanism's, or all
        of one of its modules that changes nothing at first."""
        keys = {f"{MECHANISM}{key}" for key in self.temporal_mechanism.state_dict()}
        if keys <= missing:
            return keys
        begins = set()
        for module in self.temporal_mechanism.added_later:
            own = {key for key in keys if key.startswith(f"{MECHANISM}{module}.")}
            if own <= missing:
                begins |= own
        return begins

    def _initialise(self, keys: set[str]) -> None:
        """Set tensors of the temporal mechanism afresh: diffusers leaves without values what it does not load."""
        fresh = self._new_mechanism().to(self.dtype).eval()
        loaded = self.temporal_mechanism.state_dict()
        fresh.load_state_dict({key: loaded[key] for key in loaded if f"{MECHANISM}{key}" not in keys}, strict=False)
        self.temporal_mechanism = fresh

    def remove_temporal_mechanism(self) -> None:
        """Make every frame on its own from now on, whatever the other weights have been trained with.

        Latent-Shift's ablation (arXiv 2304.08477, Sec. 4.4): the shift has no weights, but the network counts on it.
        """
        self.register_to_config(temporal="none")
        self.temporal_mechanism = self._new_mechanism()

    def enable_gradient_checkpointing(self) -> None:
        """Recompute each layer in the backward pass instead of keeping its activations (never reentrant)."""
        self.gradient_checkpointing = True

    def disable_gradient_checkpointing(self) -> None:
        """Keep activations again."""
        self.gradient_checkpointing = False

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        return_dict: bool = True,
    ) -> UNet2DConditionOutput | tuple[Tensor]:
        """Predict the noise in a batch of clips (or v, whatever the network was trained for).

        Args:
            sample: noisy latents (B, F, C, H, W); F ≥ 1, any H and W.
            timestep: a number, or (B,) one for each clip.
            encoder_hidden_states: text features (B, L, D), one text a clip.
            return_dict: answer with a `.sample`, else with a tuple.

        Raises:
            ValueError: latents without a frame axis, or another number of texts than clips.
        """
        if sample.ndim != 5:
            raise ValueError(f"latents must be (B, F, C, H, W), not of shape {tuple(sample.shape)}")
        if encoder_hidden_states.shape[0] != sample.shape[0]:
            raise ValueError(f"{sample.shape[0]} clips came with {encoder_hidden_states.shape[0]} texts")
        num_frames = sample.shape[1]
        if self.config.center_input_sample:
            sample = 2 * sample - 1.0
        time_BD = self.time_embedding(self.get_time_embed(sample=sample, timestep=timestep))
        text_BLD = encoder_hidden_states

        x = self.conv_in(sample.flatten(0, 1))  # (N, C, H, W) from here on
        x, carried = self.temporal_mechanism.after_layer(x, num_frames, INPUT, None)
        skips = [x]
        for stage, level, block in self._blocks():
            for layers in _layers(stage, level, block):
                if stage == "decoder":
                    x = torch.cat([x, skips.pop()], dim=1)
                x, carried = self._run(layers, x, carried, time_BD, text_BLD, num_frames)
                if stage == "encoder":
                    skips.append(x)
            for downsampler in getattr(block, "downsamplers", None) or ():
                x = downsampler(x)
                skips.append(x)
            for upsampler in getattr(block, "upsamplers", None) or ():
                x = upsampler(x, skips[-1].shape[-2:])  # the skip's own size, so that odd sizes come back

        if self.conv_norm_out is not None:
            x = self.conv_act(self.conv_norm_out(x))
        noise = self.conv_out(x).unflatten(0, (-1, num_frames))
        return UNet2DConditionOutput(sample=noise) if return_dict else (noise,)

    def _run(
        self,
        layers: Layers,
        x: Tensor,
        carried: Tensor | None,
        time_BD: Tensor,
        text_BLD: Tensor,
        num_frames: int,
    ) -> tuple[Tensor, Tensor | None]:
        """One ResNet block, its transformer where it has one, and the temporal mechanism's word after each."""
        mechanism = self.temporal_mechanism

        def run(x: Tensor, carried: Tensor | None, time_BD: Tensor, text_BLD: Tensor) -> tuple[Tensor, Tensor | None]:
            x = self._resnet(layers.resnet, x, time_BD, num_frames)
            x, carried = mechanism.after_layer(x, num_frames, layers.resnet_place, carried)
            if layers.transformer is not None:
                x = layers.transformer(x, encoder_hidden_states=text_BLD, return_dict=False)[0]
                x, carried = mechanism.after_layer(x, num_frames, layers.transformer_place, carried)
            return x, carried

        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(run, x, carried, time_BD, text_BLD, use_reentrant=False)
        return run(x, carried, time_BD, text_BLD)

    def _resnet(self, block: ResnetBlock2D, x: Tensor, time_BD: Tensor, num_frames: int) -> Tensor:
        """diffusers' `ResnetBlock2D`, with the time embedding computed once a clip and the mechanism in its branch."""
        h = block.nonlinearity(block.norm1(x))
        h = self.temporal_mechanism.in_residual(h, num_frames, "residual_start")
        h = block.conv1(h)
        time = time_BD if block.skip_time_act else block.nonlinearity(time_BD)
        time = block.time_emb_proj(time).repeat_interleave(num_frames, dim=0)[:, :, None, None]
        if block.time_embedding_norm == "scale_shift":
            scale, offset = time.chunk(2, dim=1)
            h = block.norm2(h) * (1 + scale) + offset
        else:
            h = block.norm2(h + time)
        h = block.conv2(block.dropout(block.nonlinearity(h)))
        h = self.temporal_mechanism.in_residual(h, num_frames, "residual_end")
        shortcut = x if block.conv_shortcut is None else block.conv_shortcut(x)
        return (shortcut + h) / block.output_scale_factor


class Layers(NamedTuple):
    """A ResNet block and the transformer behind it, where it has one."""

    resnet: ResnetBlock2D
    resnet_place: Place
    transformer: Transformer2DModel | None
    transformer_place: Place


def _layers(stage: Stage, level: int, block: Any) -> Iterator[Layers]:
    """The layers of a block."""
    attentions = getattr(block, "attentions", ())  # the middle block has one less than it has ResNet blocks
    for i, resnet in enumerate(block.resnets):
        transformer = attentions[i] if i < len(attentions) else None
        last = i == len(block.resnets) - 1
        yield Layers(
            resnet,
            Place(stage, level, i, "resnet", last and transformer is None),
            transformer,
            Place(stage, level, i, "transformer", last),
        )

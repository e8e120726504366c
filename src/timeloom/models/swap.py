"""Swapped spatiotemporal cross-attention in 3D windows (Swap-CA): space and time guide each other.

Source: VideoFactory, arXiv 2305.10874, "Spatiotemporal Inter-Connection".

Axes: B clips, F frames, N = B·F, C channels, H height, W width; D channels inside, split over A heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from einops import rearrange
from torch import Tensor, nn

from timeloom.errors import TimeloomError
from timeloom.models.swap_options import Stream, Window

Run = tuple[int, int, int]
"""Windows of one length beside each other on an axis: where the first begins, their length, how many."""


def cut_axis(size: int, window: int, shift: int = 0) -> list[Run]:
    """Cut an axis into windows, the last one smaller where the size does not divide; with a shift, the first too.

    A window as large as the axis, or 0, takes it whole, and then there is nothing to shift. Cutting gives what padding
    and masking gives, and computes nothing in vain: shifted windows never join the two ends of a clip.
    """
    if window == 0 or window >= size:
        return [(0, size, 1)]
    runs = [(0, shift, 1)] if shift else []
    whole, rest = (size - shift) // window, (size - shift) % window
    if whole:
        runs.append((shift, window, whole))
    if rest:
        runs.append((size - rest, rest, 1))
    return runs


def window_attention(query: Tensor, key: Tensor, value: Tensor, window: Window, shift: int = 0) -> Tensor:
    """softmax(QKᵀ/√d)·V within windows that do not overlap.

    Args:
        query: (B, F, H, W, A, D/A), as are `key` and `value`, the latter two of the other stream.
        window: clipped to the axes where they are smaller.
        shift: frames by which the windows are moved; space is never shifted.
    """
    runs_F, runs_H, runs_W = (
        cut_axis(size, side, by) for size, side, by in zip(query.shape[1:4], window, (shift, 0, 0), strict=True)
    )
    slabs = []
    for frames in runs_F:
        rows = []
        for row in runs_H:
            boxes = [_attend_in_boxes(query, key, value, frames, row, column) for column in runs_W]
            rows.append(torch.cat(boxes, dim=3))
        slabs.append(torch.cat(rows, dim=2))
    return torch.cat(slabs, dim=1)


def _attend_in_boxes(query: Tensor, key: Tensor, value: Tensor, frames: Run, rows: Run, columns: Run) -> Tensor:
    """Attention in all windows of one shape, cut out of the whole: (B, f, h, w, A, D/A)."""
    counts = {"nf": frames[2], "nh": rows[2], "nw": columns[2]}
    f, h, w = (slice(first, first + length * count) for first, length, count in (frames, rows, columns))
    query, key, value = (
        rearrange(each[:, f, h, w], "b (nf f) (nh h) (nw w) a d -> (b nf nh nw) a (f h w) d", **counts)
        for each in (query, key, value)
    )
    mixed = F.scaled_dot_product_attention(query, key, value)
    sides = {"f": frames[1], "h": rows[1], "w": columns[1]}
    return rearrange(mixed, "(b nf nh nw) a (f h w) d -> b (nf f) (nh h) (nw w) a d", **counts, **sides)


class SwapAttention(nn.Module):
    """z = x + y + Proj_out(h), where one stream of features asks and the other answers. At first z = x + y, exactly.

    x~ = Proj_in_x(GN(x)), y~ = Proj_in_y(GN(y)); where the spatial stream x asks, h = MCA(LN(x~), LN(y~)) + x~ in
    windows, then h = FFN(LN(h)) + h; where the temporal stream y does, the two change places.

    Args:
        channels: C.
        heads: A, which divides `inner_channels`.
        asks: the stream that gives the queries; the other gives keys and values.
        window: frames, rows and columns of a window; 0 takes an axis whole.
        shifted: move the windows in time by half of their frames.
        feed_forward: whether h goes through a gated feed-forward network.
        inner_channels: D; C unless told otherwise.
        groups: of both group norms, over a whole clip.

    Raises:
        TimeloomError: the heads do not divide the channels.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        asks: Stream = "spatial",
        window: Window = (8, 8, 8),
        shifted: bool = False,
        feed_forward: bool = True,
        inner_channels: int | None = None,
        groups: int = 32,
    ) -> None:
        super().__init__()
        inner = inner_channels or channels
        if heads < 1 or inner % heads:
            raise TimeloomError(f"Swap-CA of {inner} channels cannot be split over {heads} heads: they do not divide.")
        self.heads, self.asks, self.window = heads, asks, window
        self.shift = window[0] // 2 if shifted else 0
        self.norm_spatial = nn.GroupNorm(groups, channels, eps=1e-6)
        self.norm_temporal = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in_spatial = nn.Linear(channels, inner)
        self.proj_in_temporal = nn.Linear(channels, inner)
        self.norm_query = nn.LayerNorm(inner)
        self.norm_answer = nn.LayerNorm(inner)
        self.to_q = nn.Linear(inner, inner, bias=False)
        self.to_k = nn.Linear(inner, inner, bias=False)
        self.to_v = nn.Linear(inner, inner, bias=False)
        self.to_out = nn.Linear(inner, inner)
        self.norm_hidden = nn.LayerNorm(inner) if feed_forward else None
        self.feed_forward = FeedForward(inner, activation_fn="geglu") if feed_forward else None
        self.proj_out = nn.Linear(inner, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, spatial_NCHW: Tensor, temporal_NCHW: Tensor, num_frames: int) -> Tensor:
        """x and y, both (B·F, C, H, W), the frames of a clip next to each other; z of that shape."""
        spatial = self.proj_in_spatial(self._tokens(self.norm_spatial, spatial_NCHW, num_frames))
        temporal = self.proj_in_temporal(self._tokens(self.norm_temporal, temporal_NCHW, num_frames))
        query, answer = (spatial, temporal) if self.asks == "spatial" else (temporal, spatial)
        hidden = self._attention(self.norm_query(query), self.norm_answer(answer)) + query
        if self.feed_forward is not None and self.norm_hidden is not None:
            hidden = self.feed_forward(self.norm_hidden(hidden)) + hidden
        change_NCHW = self.proj_out(hidden).flatten(0, 1).permute(0, 3, 1, 2)
        return spatial_NCHW + temporal_NCHW + change_NCHW

    def _tokens(self, norm: nn.GroupNorm, features_NCHW: Tensor, num_frames: int) -> Tensor:
        """(B, F, H, W, C), normalised over each clip as a whole."""
        clips = rearrange(features_NCHW, "(b f) c h w -> b c f h w", f=num_frames)
        return rearrange(norm(clips), "b c f h w -> b f h w c")

    def _attention(self, query: Tensor, answer: Tensor) -> Tensor:
        """Multi-head cross-attention in windows, (B, F, H, W, D) in and out."""
        query, key, value = (
            project(tokens).unflatten(-1, (self.heads, -1))
            for project, tokens in ((self.to_q, query), (self.to_k, answer), (self.to_v, answer))
        )
        return self.to_out(window_attention(query, key, value, self.window, self._shift(query.shape[1])).flatten(-2))

    def _shift(self, num_frames: int) -> int:
        """Of the windows at so many frames: windows longer than the clip end with it, and have nothing to shift."""
        return self.shift if num_frames > self.window[0] else 0

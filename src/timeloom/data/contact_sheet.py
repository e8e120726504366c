"""Contact sheets: many clips on one page, a row of frames each, the caption below."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import ceil

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from timeloom.data.clip import Frames
from timeloom.data.write import write_image

BACKGROUND, TEXT, TITLE = (24, 24, 27), (228, 228, 231), (255, 255, 255)
MARGIN, GAP, BETWEEN_CLIPS = 12, 2, 10  # pixels
CAPTION_PX, TITLE_PX = 14, 20
MIN_STRIP_PX = 160  # a strip of one tiny frame still leaves room for words


def write_contact_sheet(
    path: str | os.PathLike[str],
    clips: Sequence[Frames],
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    frames_per_clip: int = 8,
    title: str | None = None,
    scale: int = 1,
    overwrite: bool = True,
) -> None:
    """Write `contact_sheet(clips, ...)` as a .png. Raises as `contact_sheet` and `write_image` do."""
    sheet = contact_sheet(clips, captions, columns, frames_per_clip, title, scale)
    write_image(path, sheet, metadata={"title": title} if title else None, overwrite=overwrite)


def contact_sheet(
    clips: Sequence[Frames],
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    frames_per_clip: int = 8,
    title: str | None = None,
    scale: int = 1,
) -> Frames:
    """Draw every clip as a strip of frames in the order of time, its caption below.

    clips: each uint8 (F, H, W, 3); sizes may differ. captions: one a clip, of any length; they wrap.
    columns: strips side by side, 1 unless said. frames_per_clip: evenly chosen, first and last included; shorter clips
    show all they have. scale: whole enlargement of the pixels, so that small frames can be judged.

    Returns: uint8 (H, W, 3). Raises: ValueError for no clips, wrong shapes, or captions that are not one a clip.
    """
    if not clips:
        raise ValueError("a contact sheet needs at least one clip")
    if captions is not None and len(captions) != len(clips):
        raise ValueError(f"{len(clips)} clips need as many captions, not {len(captions)}")
    if frames_per_clip < 1 or scale < 1 or (columns is not None and columns < 1):
        raise ValueError("columns, frames_per_clip and scale must be at least 1")
    columns = min(columns or 1, len(clips))
    strips = [_strip(clip, frames_per_clip, scale) for clip in clips]
    width = max(MIN_STRIP_PX, *(strip.width for strip in strips))
    font = _font(CAPTION_PX)
    cells = [
        _cell(strip, _wrap(caption, font, width), width, font)
        for strip, caption in zip(strips, captions or [""] * len(clips), strict=True)
    ]
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    inner_width = columns * width + (columns - 1) * BETWEEN_CLIPS
    title_font = _font(TITLE_PX)
    heading = _text_image(_wrap(title or "", title_font, inner_width), inner_width, title_font, TITLE)
    row_heights = [max(cell.height for cell in row) for row in rows]
    top = MARGIN + (heading.height + BETWEEN_CLIPS if title else 0)
    page_height = top + sum(row_heights) + BETWEEN_CLIPS * (len(rows) - 1) + MARGIN
    page = Image.new("RGB", (inner_width + 2 * MARGIN, page_height), BACKGROUND)
    if title:
        page.paste(heading, (MARGIN, MARGIN))
    for row, row_height in zip(rows, row_heights, strict=True):
        for column, cell in enumerate(row):
            page.paste(cell, (MARGIN + column * (width + BETWEEN_CLIPS), top))
        top += row_height + BETWEEN_CLIPS
    return np.asarray(page)


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and knows the letters, dashes and quotes that Pillow's own lacks."""
    import matplotlib

    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size_px)


def _strip(clip: Frames, frames_per_clip: int, scale: int) -> Image.Image:
    """The chosen frames of one clip, side by side."""
    if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[3] != 3 or 0 in clip.shape:
        raise ValueError(f"a clip must be uint8 of shape (F, H, W, 3), not {clip.dtype} {clip.shape}")
    count, height, width = min(frames_per_clip, len(clip)), clip.shape[1] * scale, clip.shape[2] * scale
    strip = Image.new("RGB", (count * width + (count - 1) * GAP, height), BACKGROUND)
    for place, index in enumerate(np.linspace(0, len(clip) - 1, count).round().astype(int)):
        frame = Image.fromarray(np.ascontiguousarray(clip[index]))
        strip.paste(frame.resize((width, height), Image.Resampling.NEAREST), (place * (width + GAP), 0))
    return strip


def _cell(strip: Image.Image, lines: list[str], width: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    """A strip with its caption below."""
    if not lines:
        return strip
    words = _text_image(lines, width, font, TEXT)
    cell = Image.new("RGB", (width, strip.height + words.height), BACKGROUND)
    cell.paste(strip, (0, 0))
    cell.paste(words, (0, strip.height))
    return cell


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines of at most `width` pixels; a word longer than a line is broken."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        while font.getlength(word) > width:
            fits = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or font.getlength(word[:n]) <= width)
            lines += [line] if line else []
            lines.append(word[:fits])
            line, word = "", word[fits:]
        joined = f"{line} {word}".strip()
        if font.getlength(joined) > width:
            lines.append(line)
            joined = word
        line = joined
    return lines + ([line] if line else [])


def _text_image(
    lines: list[str], width: int, font: ImageFont.FreeTypeFont, colour: tuple[int, int, int]
) -> Image.Image:
    line_height = ceil(font.getbbox("Äg")[3]) + 3
    image = Image.new("RGB", (width, max(1, line_height * len(lines) + 3)), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for place, line in enumerate(lines):
        draw.text((0, 2 + place * line_height), line, font=font, fill=colour)
    return image

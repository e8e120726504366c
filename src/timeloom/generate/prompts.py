"""Prompts: read from files, checked against the tokenizer, turned into file names."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from timeloom.errors import TimeloomError

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SLUG_LENGTH = 60  # characters; with the index in front still far below the 255 bytes that file systems allow


@dataclass(frozen=True)
class PromptFile:
    """The prompts of a file, and how many of its lines were blank."""

    prompts: list[str]
    blank_lines: int


def read_prompts(path: Path) -> PromptFile:
    """Read a UTF-8 text file with one prompt a line; blank lines are left out and counted.

    Raises:
        TimeloomError: the file cannot be read, is not UTF-8, or holds no prompt.
    """
    prompts, blank_lines = [], 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                prompt = _decode(line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line, path, number).strip()
                if prompt:
                    prompts.append(prompt)
                else:
                    blank_lines += 1
    except OSError as error:
        raise TimeloomError(f"Cannot read the prompts file {path}: {error.strerror}.") from error
    if not prompts:
        raise TimeloomError(f"The prompts file {path} holds no prompt: {blank_lines} blank line(s) and nothing else.")
    return PromptFile(prompts, blank_lines)


def _decode(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TimeloomError(
            f"{path} is not UTF-8: line {number} has the byte 0x{line[error.start]:02x} at position {error.start + 1}. "
            "Save the file as UTF-8."
        ) from error


def text_length(tokenizer: CLIPTokenizer, num_positions: int) -> int:
    """How many tokens a prompt is padded or cut to, the two marks at its ends included."""
    return min(int(tokenizer.model_max_length), num_positions)


def words_cut(tokenizer: CLIPTokenizer, prompt: str, max_tokens: int) -> str:
    """The words at the end of the prompt that do not fit in `max_tokens` tokens, the marks at both ends included."""
    encoded = tokenizer(prompt, return_offsets_mapping=True, add_special_tokens=False, truncation=False, verbose=False)
    kept = max_tokens - 2
    if len(encoded["input_ids"]) <= kept:
        return ""
    start = encoded["offset_mapping"][kept][0]
    while start > 0 and not prompt[start - 1].isspace():  # a word of which only the beginning fits is damaged too
        start -= 1
    return prompt[start:].strip()


def require_prompt(prompt: str) -> None:
    """Raise TimeloomError where a prompt says nothing."""
    if not prompt.strip():
        raise TimeloomError('The prompt is empty. Say what the video shows, for example "a red seven moves left".')


def slug(prompt: str) -> str:
    """A prompt as a safe piece of a file name: lower-case ASCII letters, digits and hyphens, at most 60 of them."""
    ascii_text = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")
    return words[:SLUG_LENGTH].rstrip("-") or "prompt"

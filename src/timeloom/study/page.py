"""The page that raters see: one file of HTML, served or laid into a folder."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from timeloom.data.write import replace_file
from timeloom.study.design import LINKS, Study


def page(mode: Literal["server", "folder"]) -> str:
    """The page, for a study that is served or that lies in a folder."""
    text = resources.files("timeloom.study").joinpath("pages/study.html").read_text(encoding="utf-8")
    return text.replace('data-mode="server"', f'data-mode="{mode}"', 1)


def policy(html: str) -> str:
    """The Content-Security-Policy: scripts and styles of the page itself, and no others, whatever is in a prompt."""

    def hashed(tag: str) -> str:
        text = re.search(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert text is not None
        return f"'sha256-{base64.b64encode(hashlib.sha256(text[1].encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {hashed('script')}; style-src {hashed('style')}; connect-src 'self'; "
        "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def greeting(study: Study) -> dict[str, Any]:
    """What the page says beside every pair. The names of the systems are not in it."""
    asked = [{"text": question.text, "show_prompt": question.show_prompt} for question in study.questions]
    return {"title": study.title, "questions": asked}


def rater_name(number: int) -> str:
    """How a rater is called in files: r0001."""
    return f"r{number:04d}"


def write_links(folder: Path, raters: Sequence[tuple[int, str, str]], link: Callable[[str], str]) -> Path:
    """Write links.csv for a crowd platform, from (number, token, completion code) of the raters."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["rater", "link", "completion_code"])
    table.writerows([rater_name(number), link(token), code] for number, token, code in raters)
    replace_file(folder / LINKS, text.getvalue().encode())
    return folder / LINKS

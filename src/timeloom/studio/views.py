"""What the page shows, as HTML: pure functions of jobs and items. All text of visitors and files is escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence

from timeloom.generate.prompts import slug
from timeloom.studio.browse import Item
from timeloom.studio.jobs import Clip, Job

SHOWN_SETTINGS = {
    "model": "model",
    "seed": "seed",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "sampler": "sampler",
    "num_frames": "frames",
    "fps": "fps",
    "upscaler": "upscaler",
    "negative_prompt": "negative prompt",
}
"""Settings of a finished clip that are told, and what they are called."""
SMALL_PX = 128
"""Clips no wider than this show their pixels when they are enlarged."""


def player(job: Job, clip: Clip, playing: str = "autoplay loop") -> str:
    """A finished clip, playing in a loop unless told otherwise; an image for a single frame."""
    small = " tl-small" if clip.width <= SMALL_PX else ""
    kind = f'class="tl-clip{small}" width="{clip.width}" height="{clip.height}"'
    label = html.escape(f"{job.request.prompt}, seed {job.request.seed}", quote=True)
    if clip.file.suffix == ".png":
        return f'<img {kind} src="/clip/{job.token}" alt="{label}">'
    return f'<video {kind} src="/clip/{job.token}" aria-label="{label}" {playing} muted playsinline></video>'


def progress(job: Job, ahead_of: Callable[[Job], int], playing: str = "autoplay loop") -> str:
    """How far a job is, with a look at it; the sentence that ended it; or the clip."""
    if job.state == "done" and job.clip is not None:
        return player(job, job.clip, playing)
    if job.state == "failed":
        return f'<p class="tl-error" role="alert">{html.escape(job.error)}</p>'
    if job.state == "cancelled":
        return '<p class="tl-note">Cancelled.</p>'
    if job.state == "waiting":
        ahead = ahead_of(job)
        return f'<p class="tl-note">Waiting{f", {ahead} ahead" if ahead else ""} …</p>'
    if not job.steps:
        return '<p class="tl-note">Loading the model …</p>'
    picture = base64.b64encode(job.preview).decode()
    look = f'<img class="tl-clip tl-small" src="data:image/jpeg;base64,{picture}" alt="preview">' if job.preview else ""
    return (
        f'{look}<progress max="{job.steps}" value="{job.step}" aria-label="denoising"></progress>'
        f'<p class="tl-note">Step {job.step} of {job.steps}</p>'
    )


def facts(clip: Clip) -> str:
    """What a clip was made with, in one line."""
    told = [f"{name} {clip.settings[key]}" for key, name in SHOWN_SETTINGS.items() if clip.settings.get(key)]
    told += [f"{clip.width}×{clip.height}", f"made in {clip.seconds:.1f} s"]
    return html.escape(" · ".join(told))


def download(job: Job, clip: Clip) -> str:
    """A link that saves the clip under a name that tells prompt and seed."""
    name = f"{slug(job.request.prompt)}-{job.request.seed}{clip.file.suffix}"
    return f'<a class="tl-action" href="/clip/{job.token}" download="{name}">Download</a>'


def result(job: Job | None, ahead_of: Callable[[Job], int]) -> str:
    """The newest clip, large."""
    if job is None:
        return '<div class="tl-result"><p class="tl-note">What you generate appears here.</p></div>'
    below = f'<p class="tl-facts">{facts(job.clip)}</p>' if job.clip is not None else ""
    return (
        f'<div class="tl-result" data-state="{job.state}"><p class="tl-title">{html.escape(job.request.prompt)}</p>'
        f"{progress(job, ahead_of)}{below}</div>"
    )


def history(jobs: Sequence[Job]) -> str:
    """All finished clips, each with its settings and what can be done with it."""
    cards = [_card(job, job.clip) for job in jobs if job.clip is not None]
    return f'<div class="tl-grid">{"".join(cards)}</div>' if cards else ""


def _card(job: Job, clip: Clip) -> str:
    buttons = "".join(
        f'<button type="button" class="tl-action" data-action="{action}" data-token="{job.token}">{words}</button>'
        for action, words in (
            ("again", "Same again, another seed"),
            ("reuse", "Use these settings"),
            ("remove", "Remove"),
        )
    )
    return (
        f'<article class="tl-card">{player(job, clip)}<p class="tl-title">{html.escape(job.request.prompt)}</p>'
        f'<p class="tl-facts">{facts(clip)}</p><div class="tl-actions">{download(job, clip)}{buttons}</div></article>'
    )


def comparison(jobs: Sequence[Job], ahead_of: Callable[[Job], int]) -> str:
    """All clips of a comparison, side by side; a script plays them in step."""
    if not jobs:
        return '<p class="tl-note">Give several models, seeds or settings, and their clips play here in step.</p>'
    cells = []
    for job in jobs:
        below = f'<p class="tl-facts">{facts(job.clip)}</p>{download(job, job.clip)}' if job.clip is not None else ""
        label = html.escape(job.label or job.request.prompt)
        cells.append(
            f'<article class="tl-card" data-state="{job.state}"><p class="tl-title">{label}</p>'
            f"{progress(job, ahead_of, playing='')}{below}</article>"
        )
    pause = '<button type="button" class="tl-action" data-in-step="pause">Pause or play all</button>'
    return (
        f'<p class="tl-title">{html.escape(jobs[0].request.prompt)}</p>'
        f'<div class="tl-grid tl-in-step">{"".join(cells)}</div><div class="tl-actions">{pause}</div>'
    )


def shelf(key: int, items: Sequence[Item]) -> str:
    """One page of a collection."""
    cards = []
    for item in items:
        source = f"/browse/{key}/{item.number}"
        title = html.escape(item.title)
        look = (
            f'<a href="{source}" target="_blank"><img class="tl-clip" loading="lazy" src="{source}" alt="{title}"></a>'
            if item.picture
            else f'<video class="tl-clip" src="{source}" aria-label="{title}" autoplay muted loop playsinline></video>'
        )
        reasons = "".join(f'<span class="tl-reason">{html.escape(reason)}</span>' for reason in item.reasons)
        cards.append(
            f'<article class="tl-card{" tl-wide" if item.picture else ""}">{look}<p class="tl-title">{title}</p>'
            f'{reasons}<p class="tl-facts">{html.escape(item.facts)}</p></article>'
        )
    return f'<div class="tl-grid">{"".join(cards)}</div>' if cards else '<p class="tl-note">Nothing here.</p>'

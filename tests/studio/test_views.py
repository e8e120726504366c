from html.parser import HTMLParser
from pathlib import Path

import pytest

from timeloom.studio import views
from timeloom.studio.browse import Item
from timeloom.studio.jobs import Clip, Job
from timeloom.studio.request import ClipRequest

NASTY = '"><script>alert(1)</script> {{x}} ${y} </video>'


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def finished(suffix=".mp4", prompt=NASTY):
    job = Job(ClipRequest(prompt, "m", seed=3), "me", Path("/secret"), label=NASTY)
    told = {"model": "m", "seed": "3", "num_inference_steps": "20", "negative_prompt": NASTY}
    job.clip, job.state = Clip(Path(f"/secret/{job.token}{suffix}"), told, 64, 48, 1.25), "done"
    return job


@pytest.mark.parametrize(
    "show",
    [
        views.history,
        lambda jobs: views.comparison(jobs, lambda job: 0),
        lambda jobs: views.result(jobs[0], lambda job: 0),
    ],
)
def test_text_of_visitors_stays_text_and_paths_stay_here(show):
    page = show([finished()])
    tags = Tags(page)
    assert "script" not in [tag for tag, _ in tags.tags]
    assert NASTY in tags.text
    assert "/secret" not in page


def test_text_of_folders_stays_text():
    tags = Tags(views.shelf(3, [Item(7, NASTY, (NASTY,), NASTY), Item(8, NASTY, picture=True)]))
    assert {tag for tag, _ in tags.tags} == {"div", "article", "video", "img", "a", "p", "span"}
    assert [told["src"] for tag, told in tags.tags if tag in ("video", "img")] == ["/browse/3/7", "/browse/3/8"]


def test_a_clip_of_one_frame_is_an_image():
    assert "img" in [tag for tag, _ in Tags(views.history([finished(".png")])).tags]


def test_a_download_is_named_after_prompt_and_seed():
    [link] = [told for tag, told in Tags(views.history([finished(prompt="A red seven!")])).tags if tag == "a"]
    assert link["download"] == "a-red-seven-3.mp4"


def test_only_a_comparison_begins_by_itself_together():
    [video] = [told for tag, told in Tags(views.comparison([finished()], lambda job: 0)).tags if tag == "video"]
    assert "loop" not in video
    assert "autoplay" not in video
    [video] = [told for tag, told in Tags(views.history([finished()])).tags if tag == "video"]
    assert {"loop", "autoplay", "muted", "playsinline"} <= set(video)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("waiting", "Waiting, 4 ahead"),
        ("running", "Loading the model"),
        ("cancelled", "Cancelled"),
        ("failed", "<too> big"),
    ],
)
def test_every_state_is_told(state, words):
    job = Job(ClipRequest("a red seven", "m"), "me", Path())
    job.state, job.error = state, "<too> big"
    assert words in Tags(views.result(job, lambda job: 4)).text
    assert views.history([job]) == ""


def test_progress_is_told_with_a_look():
    job = Job(ClipRequest("a red seven", "m"), "me", Path())
    job.state, job.step, job.steps, job.preview = "running", 3, 20, b"jpeg"
    tags = Tags(views.result(job, lambda job: 0))
    assert ("progress", {"max": "20", "value": "3", "aria-label": "denoising"}) in tags.tags
    assert "Step 3 of 20" in tags.text
    assert any(told.get("src", "").startswith("data:image/jpeg;base64,") for _, told in tags.tags)


def test_nothing_yet_says_what_to_do():
    assert "appears here" in views.result(None, lambda job: 0)
    assert "in step" in views.comparison([], lambda job: 0)
    assert "Nothing" in views.shelf(0, [])

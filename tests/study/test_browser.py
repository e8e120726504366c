"""A whole study in a real Chromium: from the link to the report, with a reload in the middle, by keys, on a phone."""

import contextlib
import csv
import functools
import http.server
import json
import threading
import time

import pytest

from timeloom.study import command
from timeloom.study.design import LINKS
from timeloom.study.store import count_votes

from .conftest import read_json, serving

PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}


@pytest.fixture()
def page(chromium):
    """The browser, empty and as wide as a desk's."""
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.set_window_size(1100, 800)
    chromium.get_log("browser")
    yield chromium
    chromium.get("about:blank")


def links(folder):
    with (folder / LINKS).open(newline="") as file:
        return [row["link"] for row in csv.DictReader(file)]


def wait(page, condition, seconds=40):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(page, seconds, poll_frequency=0.02).until(
        lambda page: page.execute_script(f"return {condition}")
    )


READY = "!document.querySelector('[data-choice]').disabled"
ENDED = "!document.getElementById('end').hidden"


def text(page, name):
    return page.execute_script("return document.getElementById(arguments[0]).innerText", name)


def start(page, link):
    page.get(link)
    wait(page, "!document.getElementById('welcome').hidden")
    page.execute_script("document.getElementById('start').click()")
    wait(page, READY)


def press(page, key):
    from selenium.webdriver.common.action_chains import ActionChains

    before = page.execute_script("return since")
    ActionChains(page).send_keys(key).perform()
    wait(page, f"({READY} && since !== {before}) || {ENDED}")


def quiet(page):
    """Nothing was complained about on the console."""
    said = [entry["message"] for entry in page.get_log("browser") if "favicon" not in entry["message"]]
    assert not said


@pytest.mark.slow
def test_from_link_to_report(page, folder, capsys):
    from selenium.webdriver.common.keys import Keys

    with serving(folder) as (_, _process):
        for rater, link in enumerate(links(folder)[:2]):
            page.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": "*", "storageTypes": "all"})
            start(page, link)
            seen = 0
            while not page.execute_script(f"return {ENDED}"):
                shown = page.execute_script(
                    "return [left.currentSrc, right.currentSrc, left.paused, right.paused, left.muted]"
                )
                assert all(source.startswith("blob:") for source in shown[:2]) and shown[4]
                question = text(page, "question")
                if question == "Which video matches the text better?":
                    assert text(page, "prompt") in ("a red seven", "a <b>blue</b> two", "two & two", "the fourth")
                else:
                    assert page.execute_script("return document.getElementById('prompt').hidden")
                press(page, (Keys.ARROW_LEFT, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)[seen % 3])
                seen += 1
                if rater == 0 and seen == 5:  # a reload in the middle of a pair: it goes on where it was
                    at = text(page, "count"), text(page, "question")
                    page.refresh()
                    wait(page, READY)
                    assert (text(page, "count"), text(page, "question")) == at
                    assert count_votes(folder) == 5
            assert seen == 26 and "Thank you" in text(page, "thanks") and len(text(page, "code")) == 10
        quiet(page)
    assert count_votes(folder) == 52
    words = ["report", str(folder), "--resamples", "100", "--min-attention", "0", "--min-seconds", "0"]
    assert command.main(words) == 0
    report = read_json(folder / "report.json")
    assert report["votes"]["counted"] == 48 and report["raters"]["finished"] == ["r0001", "r0002"]
    page.get((folder / "report.html").as_uri())
    assert page.execute_script("return [...document.images].every((image) => image.naturalWidth > 0)")
    assert "alpha vs. beta" in page.execute_script("return document.body.innerText")
    quiet(page)


def test_both_play_in_step_and_again_and_again(page, folder):
    with serving(folder):
        start(page, links(folder)[0])
        apart, loops, before = 0.0, 0, 0.0
        end = time.monotonic() + 60  # not a number of looks: how long one takes is the machine's
        while time.monotonic() < end:
            left, right = page.execute_script("return [left.currentTime, right.currentTime]")
            loops += left < before
            before, apart = left, max(apart, min(abs(left - right), 0.5 - abs(left - right)))
            if loops >= 2:
                break
        assert loops >= 2 and apart < 0.2
        page.execute_script("document.getElementById('pause').click()")
        assert text(page, "pause") == "Play" and page.execute_script("return left.paused && right.paused")


def test_on_a_phone_all_is_in_view_and_large_enough_to_touch(page, folder):
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    with serving(folder):
        start(page, links(folder)[0])
        boxes = page.execute_script(
            "return [...document.querySelectorAll('video, [data-choice], #question')].map((one) => {"
            "const box = one.getBoundingClientRect(); return [box.left, box.right, box.top, box.bottom]; })"
        )
        width, height = page.execute_script("return [document.documentElement.scrollWidth, innerHeight]")
        assert width == PHONE["width"] and len(boxes) == 6
        assert all(0 <= left < right <= width and 0 <= top < bottom <= height for left, right, top, bottom in boxes)
        buttons = boxes[3:]
        assert all(bottom - top >= 48 and right - left >= 100 for left, right, top, bottom in buttons)
        page.execute_script("document.querySelector('[data-choice=right]').click()")
        wait(page, f"{READY} && document.getElementById('question').innerText.includes('text')")
    assert count_votes(folder) == 1


def test_it_can_be_used_without_seeing_and_without_a_mouse(page, folder):
    with serving(folder):
        start(page, links(folder)[0])
        tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        named = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]}
        wanted = {("button", "Left"), ("button", "No preference"), ("button", "Right"), ("button", "Pause")}
        assert wanted <= named and ("heading", "Which video has the higher quality?") in named
        assert any(role == "progressbar" and name == "Pairs answered" for role, name in named) or any(
            role == "progress" for role, _ in named
        )
        assert {name for role, name in named if role.lower() == "video"} >= {"Left video", "Right video"}
        assert page.execute_script("return document.activeElement.id") == "question"
        from selenium.webdriver.common.keys import Keys

        page.switch_to.active_element.send_keys(Keys.TAB)
        assert page.execute_script("return document.activeElement.dataset.choice") == "left"
        assert page.execute_script("return getComputedStyle(document.activeElement).outlineWidth") == "4px"
        before = page.execute_script("return since")
        page.switch_to.active_element.send_keys(Keys.ENTER)
        wait(page, f"since !== {before}")
    assert count_votes(folder) == 1


def test_another_browser_is_told_and_can_take_over(page, folder):
    with serving(folder):
        link = links(folder)[0]
        start(page, link)
        page.execute_script("localStorage.setItem('browser', 'f'.repeat(24))")
        page.get(link)
        wait(page, "!document.getElementById('here').hidden")
        assert "open in another browser" in text(page, "status")
        page.execute_script("document.getElementById('here').click()")
        wait(page, "!document.getElementById('welcome').hidden")


def test_an_answer_survives_a_server_that_is_away(page, folder):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    with serving(folder) as (base, process):
        start(page, links(folder)[0])
        process.kill()
        process.wait()
        ActionChains(page).send_keys(Keys.ARROW_LEFT).perform()
        wait(page, "document.getElementById('status').innerText.includes('kept here and sent again')")
        assert count_votes(folder) == 0
    port = base.rsplit(":", 1)[1]
    with serving(folder, "--port", port):
        wait(page, f"{READY} && document.getElementById('question').innerText.includes('text')")
    assert count_votes(folder) == 1


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextlib.contextmanager
def file_server(folder):
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.slow
def test_without_our_server(page, folder, tmp_path):
    from selenium.webdriver.common.keys import Keys

    with file_server(tmp_path / "web") as base:
        assert command.main(["serve", str(folder), "--offline", str(tmp_path / "web"), "--url", base]) == 0
        start(page, links(folder)[0])
        for _ in range(3):
            press(page, Keys.ARROW_RIGHT)
        page.refresh()
        wait(page, READY)
        assert text(page, "count") == "Pair 2 of 13"
        while not page.execute_script(f"return {ENDED}"):
            press(page, Keys.ARROW_RIGHT)
        assert not page.execute_script("return document.getElementById('return').hidden")
        page.execute_script(
            "URL.createObjectURL = (blob) => { blob.text().then((text) => { window.saved = text; }); return '#'; }"
        )
        page.execute_script("document.getElementById('save').click()")
        saved = wait(page, "window.saved")
        quiet(page)
    (tmp_path / "votes.json").write_text(saved)
    assert len(json.loads(saved)["votes"]) == 26
    words = ["report", str(folder), "--resamples", "100", "--min-attention", "0", "--min-seconds", "0"]
    assert command.main([*words, "--add", str(tmp_path / "votes.json")]) == 0
    assert read_json(folder / "report.json")["votes"]["counted"] == 24

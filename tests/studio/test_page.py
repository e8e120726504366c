"""The page in a real browser, with the zoo's own model."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from timeloom.data import read_metadata, write_video

PROMPT = "a red seven moves left"
NASTY = "<img src=x onerror=alert(1)> {{prompt}} ${1+1} `rm -rf` ../../etc"
# A browser does not play what is out of sight.
IS_PLAYING = """document.querySelector(arguments[0])?.scrollIntoView({block: 'center'});
return [...document.querySelectorAll(arguments[0])].map(
  (video) => !video.paused && video.readyState >= 3 && video.videoWidth > 0 && video.currentTime > 0)"""


@dataclass
class Page:
    """What a visitor sees and does."""

    driver: Any
    address: str

    def open(self):
        self.driver.get(self.address)
        self.until(lambda: self.button("Generate"))
        return self

    def until(self, condition, seconds=180):
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(self.driver, seconds, 0.1, ignored_exceptions=(StaleElementReferenceException,))
        return wait.until(lambda driver: condition())

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def text(self, selector):
        return self.driver.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def button(self, words, within="", kind=":not([role=tab]):not([tabindex='-1'])"):
        found = [one for one in self.all(f"{within} button{kind}") if one.text.partition("\n")[0] == words]
        return next((one for one in found if one.is_displayed()), None)

    def choose_tab(self, words):
        self.until(lambda: self.button(words, kind="[role=tab]")).click()

    def press(self, words, within=""):
        button = self.until(lambda: self.button(words, within))
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        self.until(button.is_enabled)
        button.click()

    def field(self, label):
        path = f"//label[.//span[normalize-space()='{label}']]//*[self::input or self::textarea]"
        shown = [one for one in self.driver.find_elements("xpath", path) if one.is_displayed()]
        return shown[0] if shown else None

    def fill(self, label, text):
        from selenium.webdriver.common.keys import Keys

        field = self.until(lambda: self.field(label))
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(Keys.DELETE)
        field.send_keys(text)

    def ask(self, prompt, steps, frames=4):
        """Fill the form and generate."""
        if self.field("Guidance; 1 is off") is None:
            self.press("Settings; blank means the model's own")
        self.fill("Steps, 1–250", str(steps))
        self.fill("Frames, 1–64; 1 is an image", str(frames))
        self.fill("Prompt", prompt)
        self.press("Generate")

    def playing(self, selector):
        return self.driver.execute_script(IS_PLAYING, selector)

    def step(self):
        bars = self.driver.execute_script(
            "return [...document.querySelectorAll('#result progress')].map((b) => b.value)"
        )
        return int(bars[0]) if bars else 0

    def requested(self):
        """Every address that the browser asked for since it was asked last."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def fetch(self, path, cookie=""):
        request = urllib.request.Request(self.address + path, headers={"cookie": cookie} if cookie else {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, b""

    def cookie(self):
        [cookie] = self.driver.get_cookies()
        return f"{cookie['name']}={cookie['value']}"


@pytest.fixture(scope="module")
def address(serve, chromium, tmp_path_factory):
    """A served page with a folder to browse; only started where there is a browser."""
    folder = tmp_path_factory.mktemp("browse") / "videos"
    for i in range(14):
        frames = np.full((4, 32, 32, 3), 10 * i, np.uint8)
        write_video(folder / f"{i:02d}.mp4", frames, metadata={"prompt": f"{NASTY} {i}"})
    return serve("--browse", folder)


@pytest.fixture()
def page(chromium, address):
    """The page, newly opened by a new visitor, at the size of a desk."""
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.set_window_size(1280, 900)
    chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
    page = Page(chromium, address)
    page.requested()  # what pages of other tests asked for is not this one's
    yield page.open()
    chromium.get("about:blank")


def test_a_prompt_becomes_a_playing_video_and_nothing_else_is_asked_for(page):
    page.driver.get_log("browser")
    page.ask(PROMPT, steps=2)
    page.until(lambda: page.playing("#result video") == [True])
    page.until(lambda: page.playing("#history video") == [True])
    told = page.text("#result")
    assert PROMPT in told
    assert "model digits-shift · seed 0 · steps 2" in told
    assert {url.split("/")[2] for url in page.requested() if url.startswith("http")} == {page.address.split("/")[2]}
    assert [entry for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_clip_is_served_to_its_visitor_alone(page, tmp_path):
    page.ask(PROMPT, steps=1)
    link = page.until(lambda: page.all("#history a[download]"))[0]
    assert link.get_attribute("download") == "a-red-seven-moves-left-0.mp4"
    path = link.get_attribute("href").removeprefix(page.address)
    status, content = page.fetch(path, page.cookie())
    (tmp_path / "mine.mp4").write_bytes(content)
    assert (status, read_metadata(tmp_path / "mine.mp4")["prompt"]) == (200, PROMPT)
    assert page.fetch(path)[0] == 404
    assert page.fetch(path, "timeloom_studio=guess")[0] == 404
    page.driver.delete_all_cookies()
    page.open()
    assert page.all("#history video") == []
    assert page.fetch(path, page.cookie())[0] == 404


def test_the_history_plays_on_while_another_clip_is_made(page):
    page.ask(PROMPT, steps=1)
    page.until(lambda: page.playing("#history video") == [True])
    page.driver.execute_script("document.querySelector('#history video').dataset.same = 'yes'")
    page.ask(PROMPT, steps=250, frames=16)
    page.until(lambda: page.step() >= 3 and page.all("#result img"))
    assert page.driver.execute_script("return document.querySelector('#history video').dataset.same") == "yes"
    page.press("Cancel")
    page.until(lambda: "Cancelled" in page.text("#result"))


def test_cancelling_ends_a_clip_and_the_next_can_be_made(page):
    page.ask(PROMPT, steps=250, frames=16)
    page.until(lambda: page.step() >= 2)
    assert page.fetch("/")[0] == 200  # it answers while a clip is made
    page.press("Cancel")
    page.until(lambda: "Cancelled" in page.text("#result"))
    page.ask(PROMPT, steps=1)
    page.until(lambda: page.playing("#result video") == [True])
    assert len(page.all("#history video")) == 1


def test_a_page_loaded_again_in_the_middle_goes_on(page):
    page.ask(PROMPT, steps=250, frames=16)
    page.until(lambda: page.step() >= 2 and page.all("#result img"))
    before = page.step()
    page.open()
    page.until(lambda: page.step() > before)
    assert PROMPT in page.text("#result")
    page.press("Cancel")
    page.until(lambda: "Cancelled" in page.text("#result"))


def test_the_history_makes_again_fills_the_form_and_forgets(page):
    page.ask(NASTY, steps=1, frames=2)
    page.until(lambda: len(page.all("#history video")) == 1)
    assert page.text("#history .tl-title") == NASTY
    page.press("Same again, another seed", "#history")
    page.until(lambda: len(page.all("#history video")) == 2)
    seeds = [one.text.partition("seed ")[2].partition(" ")[0] for one in page.all("#history .tl-facts")]
    assert seeds[1] == "0" != seeds[0]
    page.fill("Prompt", "another")
    page.press("Use these settings", "#history")
    page.until(lambda: page.field("Prompt").get_attribute("value") == NASTY)
    page.until(lambda: page.field("Seed").get_attribute("value") == seeds[0])
    page.press("Remove", "#history")
    page.until(lambda: len(page.all("#history video")) == 1)


@pytest.mark.parametrize(
    ("prompt", "steps", "words"), [("", 1, "prompt is empty"), (PROMPT, 9999, "steps must be from 1 to 250")]
)
def test_what_is_wrong_is_told(page, prompt, steps, words):
    page.ask(prompt, steps=steps)
    page.until(lambda: words in page.text("body"))
    assert page.all("#history video") == []


def test_a_comparison_plays_in_step(page):
    page.choose_tab("Compare")
    page.fill("Prompt", PROMPT)
    page.fill("Seeds", "3, 4")
    page.fill("Steps", "1, 2")
    page.press("Compare")
    page.until(lambda: page.playing("#comparison video") == [True] * 4)
    assert [one.text for one in page.all("#comparison article > .tl-title")] == [
        "seed 3, steps 1", "seed 3, steps 2", "seed 4, steps 1", "seed 4, steps 2",
    ]  # fmt: skip
    for _ in range(5):
        times = page.driver.execute_script(
            "return [...document.querySelectorAll('#comparison video')].map((video) => video.currentTime)"
        )
        assert max(times) - min(times) < 1 / 8  # a frame
    page.press("Pause or play all")
    page.until(lambda: page.playing("#comparison video") == [False] * 4)
    page.press("Pause or play all")
    page.until(lambda: page.playing("#comparison video") == [True] * 4)


def test_a_folder_is_browsed_page_by_page(page):
    page.choose_tab("Browse")
    page.until(lambda: page.playing("#shelf video")[:1] == [True])
    assert len(page.all("#shelf video")) == 12
    assert page.text("#shelf .tl-title") == f"{NASTY} 0"
    page.press("On")
    page.until(lambda: page.playing("#shelf video") == [True] * 2)
    assert "page 2 of 2" in page.text("body")


def test_the_page_fits_a_phone(page):
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    page.open()
    page.ask(PROMPT, steps=1)
    page.until(lambda: page.playing("#result video") == [True])
    width, video = page.driver.execute_script(
        "return [document.documentElement.scrollWidth, document.querySelector('#result video').clientWidth]"
    )
    assert width <= 390
    assert 250 <= video <= 390


def test_files_of_the_server_cannot_be_had(page):
    for path in ("/gradio_api/file=/etc/passwd", "/clip/..%2f..%2fetc%2fpasswd", "/browse/0/-1", "/browse/x/y"):
        assert page.fetch(path, page.cookie())[0] in (404, 422)

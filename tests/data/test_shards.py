import io
import json
import pickle
import tarfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from timeloom.data import Window, remote
from timeloom.data.shards import ShardSource, expand
from timeloom.data.table import Scan
from timeloom.errors import TimeloomError

MakeVideo = Callable[..., Path]
WINDOW = Window(num_frames=8, fps=8, height=16, width=16)


class Bomb:
    """Unpickled, it says so."""

    def __reduce__(self) -> tuple:
        return (pytest.fail, ("a pickle was loaded",))


def write_shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def shards(make_video: MakeVideo, tmp_path: Path) -> Path:
    """Two shards with three clips that can be used and seven that cannot; captions in .txt or .json."""
    video = make_video("v.mp4", num_frames=12).read_bytes()
    short = make_video("s.mp4", num_frames=4).read_bytes()
    folder = tmp_path / "shards"
    folder.mkdir()
    write_shard(
        folder / "a-0.tar",
        [
            ("x/1.mp4", video),
            ("x/1.txt", "one é\n".encode()),
            ("x/1.pkl", pickle.dumps(Bomb())),
            ("x/2.json", b'{"caption": "two", "duration": 1.5, "width": "wide"}'),
            ("x/2.seg.png", b"a mask"),
            ("x/2.MP4", video),
            ("x/3.mp4", video),
            ("x/4.txt", b"no video"),
            ("x/5.mp4", video),
            ("x/5.txt", b"\xff"),
            ("x/6.mp4", video),
            ("x/6.json", b"{"),
        ],
    )
    write_shard(
        folder / "a-1.tar",
        [
            ("x/1.mp4", video),
            ("x/1.txt", b"another one"),
            ("7.mp4", short),
            ("7.txt", b"short"),
            ("8.mp4", b""),
            ("8.txt", b"empty"),
            ("9.mp4", b"junk"),
            ("9.txt", b"junk"),
        ],
    )
    return folder


def check(source: ShardSource) -> None:
    assert [clip.caption for clip in source] == ["one é", "two", "another one"]
    assert len({clip.key for clip in source}) == 3
    for clip in source:
        assert (clip.draw(WINDOW, 1.0).mean(axis=(1, 2, 3)) / 8).round().tolist() == list(range(4, 12))


def test_samples_are_clips_or_counted(shards: Path) -> None:
    source = ShardSource(str(shards), Scan(WINDOW))
    check(source)
    reasons = dict(source.ledger.reasons)
    assert source.ledger.found == 10 and source.ledger.used == 3
    for reason in (
        "sample without a caption",
        "sample without a video or picture",
        "sample whose .txt or .json is not UTF-8",
        "sample whose .json is not JSON",
        "shorter than the window",
        "unreadable: is empty (0 bytes)",
        "unreadable: is not a video that FFmpeg knows, or its beginning is damaged",
    ):
        assert reasons[reason] == 1
    assert source[0].origin == f"{shards}/a-0.tar/x/1.mp4"


def test_patterns_stand_for_shards(shards: Path, tmp_path: Path) -> None:
    assert expand(str(shards)) == expand(f"{shards}/a-{{0..1}}.tar")
    assert expand("http://h/a-{000..002}.tar") == [f"http://h/a-00{i}.tar" for i in range(3)]
    with pytest.raises(TimeloomError, match="braces do not pair"):
        expand("a-{0..1.tar")
    with pytest.raises(TimeloomError, match=r"holds no \.tar"):
        expand(str(tmp_path))
    with pytest.raises(TimeloomError, match=r"a-2\.tar: there is no such shard"):
        ShardSource(f"{shards}/a-{{0..2}}.tar", Scan(WINDOW))


def test_the_index_is_kept_until_the_shard_changes(
    shards: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, make_video: MakeVideo
) -> None:
    check(ShardSource(str(shards), Scan(WINDOW)))
    assert len(list((cache / "tables").iterdir())) == 2
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("the shard was indexed again"))
        again = ShardSource(str(shards), Scan(WINDOW))
        check(again)
        assert again.ledger.found == 10 and again.ledger.used == 3
    write_shard(shards / "a-1.tar", [("n.mp4", make_video("n.mp4", num_frames=12).read_bytes()), ("n.txt", b"new")])
    assert [clip.caption for clip in ShardSource(str(shards), Scan(WINDOW))] == ["one é", "two", "new"]
    for kept in (cache / "tables").iterdir():
        kept.write_bytes(b"damaged")
    assert len(ShardSource(str(shards), Scan(WINDOW))) == 3


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_what_is_no_tar_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(TimeloomError, match=r"a\.tar.*(no tar file|no clip)"):
        ShardSource(str(tmp_path / "a.tar"), Scan(WINDOW))


DAMAGES = {
    "cut inside a member": lambda content, header: content[: header - 600],
    "cut between members": lambda content, header: content[:header],
    "cut inside a header": lambda content, header: content[: header + 100],
    "a header overwritten": lambda content, header: content[:header] + b"?" * 512 + content[header + 512 :],
    "a header lost": lambda content, header: content[:header] + bytes(512) + content[header + 512 :],
    "two archives joined": lambda content, header: content * 2,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_shard_that_is_damaged_or_cut_short_is_named(shards: Path, damage: Callable[[bytes, int], bytes]) -> None:
    path = shards / "a-0.tar"
    with tarfile.open(path) as tar:
        header = tar.getmember("x/3.mp4").offset
    path.write_bytes(damage(path.read_bytes(), header))
    with pytest.raises(TimeloomError, match=r"a-0\.tar: is no tar file, or it is damaged or cut short"):
        ShardSource(str(shards), Scan(WINDOW))


def test_a_shard_that_vanishes_is_a_clip_that_cannot_be_read(shards: Path) -> None:
    clip = ShardSource(str(shards), Scan(WINDOW))[0]
    (shards / "a-0.tar").unlink()
    with pytest.raises(TimeloomError, match=r"a-0\.tar/x/1\.mp4: cannot be read"):
        clip.draw(WINDOW, 0.0)


def test_what_a_command_prints_is_kept(shards: Path, cache: Path, tmp_path: Path) -> None:
    pattern = f"pipe:echo once >> {tmp_path}/ran; cat {shards}/a-{{0..1}}.tar"
    for _ in range(2):
        check(ShardSource(pattern, Scan(WINDOW)))
    assert (tmp_path / "ran").read_text() == "once\n" * 2 and len(list((cache / "shards").iterdir())) == 2
    with pytest.raises(TimeloomError, match=r"pipe:.*ended with code 1 \(cat: .*No such file"):
        ShardSource("pipe:cat none.tar", Scan(WINDOW))
    assert len(list((cache / "shards").iterdir())) == 2


class Server(BaseHTTPRequestHandler):
    """Files of `folder` in parts; `asked` counts bytes."""

    folder: Path
    parts = True
    failures = 0
    asked = 0

    def do_GET(self) -> None:
        cls = type(self)
        if cls.failures:
            cls.failures -= 1
            self.send_error(503)
            return
        path = cls.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        first, last = (int(place) for place in self.headers["Range"].removeprefix("bytes=").split("-"))
        part = content[first : last + 1] if cls.parts else content
        cls.asked += len(part)
        self.send_response(206 if cls.parts else 200)
        if cls.parts:
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Server]]]:
    monkeypatch.setattr(remote, "WAIT_S", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    handler = type("Handler", (Server,), {"folder": shards})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", handler
        http.shutdown()
        thread.join()


def test_shards_on_a_server_are_read_in_parts(server: tuple[str, type[Server]], make_video: MakeVideo) -> None:
    url, handler = server
    source = ShardSource(f"{url}/a-{{0..1}}.tar", Scan(WINDOW))
    # Nothing is opened at the start, so what is wrong shows when it is read.
    assert [clip.caption for clip in source] == ["one é", "two", "another one", "short", "empty", "junk"]
    assert source.ledger.found == 10
    handler.failures = 2
    assert (source[1].draw(WINDOW, 1.0).mean(axis=(1, 2, 3)) / 8).round().tolist() == list(range(4, 12))
    for index in (3, 4, 5):
        with pytest.raises(TimeloomError, match=r"127\.0\.0\.1:\d+/a-1\.tar"):
            source[index].draw(WINDOW, 0.0)


def test_only_headers_and_captions_travel_at_the_start(server: tuple[str, type[Server]], shards: Path) -> None:
    url, handler = server
    write_shard(
        shards / "big.tar",
        [(f"{i}.{kind}", b"x" * size) for i in range(8) for kind, size in (("txt", 9), ("mp4", 2**20))],
    )
    ShardSource(f"{url}/big.tar", Scan(WINDOW))
    assert handler.asked < 2**20


def test_what_a_server_does_not_give_is_said(server: tuple[str, type[Server]]) -> None:
    url, handler = server
    with pytest.raises(TimeloomError, match=r"none\.tar: cannot be read \(404"):
        ShardSource(f"{url}/none.tar", Scan(WINDOW))
    handler.failures = 99
    with pytest.raises(TimeloomError, match=r"a-0\.tar: cannot be read \(503"):
        ShardSource(f"{url}/a-0.tar", Scan(WINDOW))
    handler.failures, handler.parts = 0, False
    with pytest.raises(TimeloomError, match="range requests"):
        ShardSource(f"{url}/a-0.tar", Scan(WINDOW))


def test_shards_of_the_webdataset_package_are_read(make_video: MakeVideo, tmp_path: Path) -> None:
    import webdataset

    video = make_video("v.mp4", num_frames=12).read_bytes()
    with webdataset.TarWriter(str(tmp_path / "w.tar")) as writer:
        for i in range(3):
            writer.write({"__key__": f"{i:03}", "mp4": video, "txt": f"clip {i}", "json": {"fps": 8}})
    source = ShardSource(str(tmp_path / "w.tar"), Scan(WINDOW))
    assert [(clip.key, clip.caption) for clip in source] == [(f"w.tar/{i:03}", f"clip {i}") for i in range(3)]
    assert source[2].draw(WINDOW, 0.0).shape == (8, 16, 16, 3)


def test_json_facts_are_believed_where_they_are_numbers(shards: Path) -> None:
    source = ShardSource(str(shards / "a-0.tar"), Scan(WINDOW, probe_up_to=0))
    facts = {clip.caption: (clip.duration_s, clip.width) for clip in source}
    assert facts["two"] == (1.5, 0) and json.dumps(facts["one é"][1]) == "0"

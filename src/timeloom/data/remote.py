"""Files on a web server, read in parts."""

from __future__ import annotations

import http.client
import io
import time
import urllib.error
import urllib.request
from typing import Any

from timeloom.errors import TimeloomError

ATTEMPTS = 3
PATIENCE_S = 30.0
PASSING = (http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS)
WAIT_S = 0.5  # before the second attempt; doubled before each further one


class HttpFile(io.RawIOBase):
    """A seekable file over HTTP range requests. Wrap it into a BufferedReader: each read is a request.

    Raises: TimeloomError, naming the address, where the server does not answer, or answers without parts.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        _, headers = _get(url, 0, 1)
        self.size = int(headers["Content-Range"].rpartition("/")[2])
        self.identity: tuple[Any, ...] = (self.size, headers.get("ETag"), headers.get("Last-Modified"))
        self._place = 0

    @staticmethod
    def fetch(url: str, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on."""
        return _get(url, offset, size)[0] if size else b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + (0, self._place, self.size)[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self.size - self._place))
        buffer[:size] = self.fetch(self.url, self._place, size)
        self._place += size
        return size


def _get(url: str, offset: int, size: int) -> tuple[bytes, Any]:
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-{offset + size - 1}"})
    for attempt in range(ATTEMPTS):
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                if answer.status != http.client.PARTIAL_CONTENT or "Content-Range" not in answer.headers:
                    raise TimeloomError(
                        f"{url}: its server does not give parts of files (range requests); download the shards."
                    )
                content = answer.read()
            if len(content) == size:
                return content, answer.headers
            reason = f"{len(content)} bytes came instead of {size}"
        except urllib.error.HTTPError as error:
            reason = f"{error.code} {error.reason}"
            if error.code < 500 and error.code not in PASSING:
                break
        except (OSError, http.client.HTTPException) as error:
            reason = str(error)
        if attempt + 1 < ATTEMPTS:
            time.sleep(WAIT_S * 2**attempt)
    raise TimeloomError(f"{url}: cannot be read ({reason}).")

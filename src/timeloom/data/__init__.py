"""What a clip is, where clips come from, how they are read and written."""

from timeloom.data.captions import read_captions
from timeloom.data.clip import Clip, ClipSource, Frames, Ledger, Window
from timeloom.data.contact_sheet import write_contact_sheet
from timeloom.data.digits import DigitsSource
from timeloom.data.folder import FolderSource
from timeloom.data.video import VideoInfo, probe_video, read_metadata, read_video
from timeloom.data.write import write_image, write_video

__all__ = [
    "Clip",
    "ClipSource",
    "DigitsSource",
    "FolderSource",
    "Frames",
    "Ledger",
    "VideoInfo",
    "Window",
    "probe_video",
    "read_captions",
    "read_metadata",
    "read_video",
    "write_contact_sheet",
    "write_image",
    "write_video",
]

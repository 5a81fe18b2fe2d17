"""Captions written by a captioner, in a thread: with progress, and what is done stays when it is stopped or killed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from PIL import Image

from lib_lora.data.dataset import checked_picture
from lib_lora.data.decoder_process import Readers
from lib_lora.data.edits import size_in
from lib_lora.data.images import load_pixels
from lib_lora.datasets.caption_list import has_caption
from lib_lora.datasets.captioner_calls import HangsError, StoppedError, called
from lib_lora.datasets.captioners.captioner import Captioner, CaptionerError, Tags, legal_answer
from lib_lora.datasets.captioning_options import CaptioningOptions, written
from lib_lora.datasets.history import Change
from lib_lora.datasets.image_set import LONGEST_CAPTION, ImageEntry, ImageSet
from lib_lora.errors import DatasetError

MOST_FAILURES = 3  # in a row
WRITE_S = 1.0  # captions are on the disk at most so much later
LEAVE_S = 5.0  # for the captioner to end
LONGEST_REASON = 200

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptioningProgress:
    """How far a captioning is.

    `done` of `total` images, `written` new captions, `current`: name of the image at work. `problems`: a sentence for each
    image without a new caption, `ended`: why it ended before the last image; empty if it did not.
    """

    total: int
    done: int = 0
    written: int = 0
    current: str = ""
    running: bool = True
    problems: tuple[str, ...] = ()
    ended: str = ""


class Captioning:
    """One run of a captioner over images of a dataset.

    All captions of a run are one change that can be undone, unless something else is changed meanwhile. An image whose caption
    is changed meanwhile keeps that one.

    Args:
        dataset: the dataset of the images.
        captioner: not yet entered.
        entries: the images; with the mode `missing`, those that have captions are passed over.
        options: how captions are written.

    Raises:
        DatasetError: the options are not allowed, or something is missing for the captioner.
    """

    def __init__(
        self, dataset: ImageSet, captioner: Captioner, entries: Sequence[ImageEntry], options: CaptioningOptions
    ) -> None:
        options.require()
        missing = captioner.needs()
        if missing:
            raise DatasetError([missing])
        self._dataset, self._captioner, self._options = dataset, captioner, options
        self._entries = [entry for entry in entries if options.mode != "missing" or not has_caption(entry)]
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._progress = CaptioningProgress(len(self._entries))
        self._unwritten: list[tuple[ImageEntry, str]] = []
        self._change: Change | None = None
        self._lost = ""  # why captions could not be written
        self._failures = 0
        self._lock = threading.RLock()  # of the four above, and the progress

    def start(self) -> None:
        """Begin, once."""
        threading.Thread(target=self._run, name="train-lora-captioning", daemon=True).start()

    def stop(self) -> None:
        """End soon; captions that are done stay."""
        self._stopped.set()

    def join(self, seconds: float | None = None) -> bool:
        """Wait for the end; returns whether it has come."""
        return self._ended.wait(seconds)

    @property
    def progress(self) -> CaptioningProgress:
        """How far it is, from any thread."""
        return self._progress

    def _run(self) -> None:
        threading.Thread(target=self._keep_writing, name="train-lora-captions", daemon=True).start()
        try:
            ended = self._captioned()
        except StoppedError:
            ended = self._told_stop()
        except DatasetError as error:
            ended = f"{self._captioner.name} does not start: {error.problems[0]}"
        except Exception as error:
            log.warning("%s failed", self._captioner.name, exc_info=error)
            ended = f"{self._captioner.name} does not start ({_said(error)}); the console says more."
        self._write()
        self._show(running=False, current="", ended=self._told_stop() if self._is_deleted() else self._lost or ended)
        self._ended.set()

    def _keep_writing(self) -> None:
        while not self._ended.wait(WRITE_S):
            self._write()
            if self._is_deleted():
                self._stopped.set()

    def _captioned(self) -> str:
        """Caption the images; returns why this ended early, or an empty text."""
        if not self._entries:
            return ""
        try:
            called(self._captioner.__enter__, None, self._stopped)
            with Readers() as readers:
                for entry in self._entries:
                    ends = self._stopped.is_set() or self._is_deleted()
                    ended = self._told_stop() if ends else self._lost or self._one(entry, readers)
                    if ended:
                        return ended
            return ""
        finally:
            self._leave()

    def _one(self, entry: ImageEntry, readers: Readers) -> str:
        """Caption an image; returns why no other should follow, or an empty text."""
        self._show(current=entry.name)
        try:
            picture = picture_of(entry, readers)
        except DatasetError as error:
            self._tell(error.problems[0])
        except (OSError, MemoryError) as error:
            self._tell(f"Image {entry.name!r} cannot be read ({_said(error)}); it was passed over.")
        else:
            why = self._caption(entry, picture)
            self._failures = self._failures + 1 if why else 0
            if why:
                self._tell(f"Image {entry.name!r} has no new caption: {why}")
            if self._failures >= MOST_FAILURES:
                self._show(done=self._progress.done + 1)
                return f"{self._captioner.name} failed for {self._failures} images in a row, so it was stopped; the last: {why}"
        self._show(done=self._progress.done + 1)
        return ""

    def _caption(self, entry: ImageEntry, picture: Image.Image) -> str:
        """Caption a picture; returns why it has no caption, or an empty text."""
        name, seconds = self._captioner.name, self._captioner.seconds
        try:
            called(self._captioner.wait_for_turn, None, self._stopped)
            answer: str | Tags = called(partial(self._captioner.caption, picture), seconds, self._stopped)
            caption = written(legal_answer(answer, name), self._options, entry.caption)
        except StoppedError:
            raise
        except HangsError:
            return f"{name} did not answer within {seconds:g} seconds; try again, or choose another captioner."
        except CaptionerError as error:
            return error.problems[0]
        except Exception as error:
            log.warning("%s failed for %r", name, entry.name, exc_info=error)
            return f"{name} failed ({_said(error)}); the console says more."
        if not caption:
            self._tell(f"Image {entry.name!r} has no new caption: no tag is above the threshold; lower it.")
        elif len(caption) > LONGEST_CAPTION:
            self._tell(f"Image {entry.name!r} has no new caption: it would have more than {LONGEST_CAPTION} characters.")
        else:
            with self._lock:
                self._unwritten.append((entry, caption))
        return ""

    def _write(self) -> None:
        """Put the captions that are done on the disk."""
        with self._lock:
            if not self._unwritten or self._is_deleted():
                return
            self._lost = ""
            try:
                with self._dataset.held():
                    self._write_unchanged()
                self._unwritten = []
            except DatasetError as error:
                self._lost = f"The last captions were not saved: {error.problems[0]}"
            except OSError as error:
                why = f"The last captions could not be saved ({_said(error)})"
                self._lost = f"{why}; free disk space or check permissions, and start again."

    def _write_unchanged(self) -> None:
        """Write the captions of images that are still there and have the caption that they had."""
        edits, now = {}, self._dataset.edits
        for entry, caption in self._unwritten:
            edit = now.of(entry.place)
            if not entry.path.exists():
                self._tell(f"Image {entry.name!r} was removed meanwhile; it has no new caption.")
            elif edit.caption != entry.edit.caption:
                self._tell(f"The caption of {entry.name!r} was changed meanwhile; that one was kept.")
            else:
                edits[entry.place] = replace(edit, caption=caption)
        if edits:
            by = self._captioner.name.replace("The ", "the ", 1)  # within a sentence
            self._change = self._dataset.change(edits, f"captions of {by}", self._change)
            self._show(written=self._progress.written + len(edits))

    def _leave(self) -> None:
        """End the captioner. One that does not end is left."""
        try:
            called(partial(self._captioner.__exit__, None, None, None), LEAVE_S)
        except HangsError:
            log.warning("%s does not end", self._captioner.name)
        except Exception as error:
            log.warning("%s failed to end", self._captioner.name, exc_info=error)

    def _show(self, **values: Any) -> None:
        with self._lock:
            self._progress = replace(self._progress, **values)

    def _tell(self, problem: str) -> None:
        with self._lock:
            self._progress = replace(self._progress, problems=(*self._progress.problems, problem))

    def _is_deleted(self) -> bool:
        return not self._dataset.folder.is_dir()

    def _told_stop(self) -> str:
        if self._is_deleted():
            return "The dataset was deleted, so no more captions are written."
        return f"It was stopped after {self._progress.done} of {self._progress.total} images; their captions stay."


def picture_of(entry: ImageEntry, readers: Readers) -> Image.Image:
    """The part of an image that is trained on, RGB and upright.

    Raises:
        DatasetError: it cannot be read.
        OSError: the file is missing.
    """
    whole = checked_picture(entry.path, readers).size
    if size_in(entry.edit.crop, whole) is None:
        raise DatasetError([f"Image {entry.name!r} is {whole}, smaller than the part chosen of it; choose the part again."])
    picture = Image.fromarray(load_pixels(entry.path))
    return picture if entry.edit.crop is None else picture.crop(entry.edit.crop)


def _said(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:LONGEST_REASON] or type(error).__name__

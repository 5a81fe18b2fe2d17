"""Looks at the images of a dataset in the background: sizes first, then all facts and a thumbnail of each. Of large JPEGs that
does not make all pixels, which is done one by one once nothing else is to be done, before training needs it.

Results are kept on the disk until a file changes, so that a dataset that was looked at once opens at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from lib_lora.data.dataset import remember
from lib_lora.data.decoder_process import NoReaderError, Reader
from lib_lora.data.image_facts import LOOKED_AT
from lib_lora.data.image_files import NotNowError, Picture
from lib_lora.datasets.decoders import SHARED, Decoders
from lib_lora.datasets.image_set import ImageEntry, ImageSet
from lib_lora.datasets.looked_index import (
    FileKey,
    Looked,
    key_of,
    make,
    read,
    remove_others,
    thumbnail_name,
    thumbnails,
    write,
)
from lib_lora.errors import DatasetError

SIDE = LOOKED_AT  # of a thumbnail, in pixels; more would have a decoder make four times as many
LINGER_S = 2.0  # how long processes wait for more images
IN_A_ROW = 32  # sizes that are read before an image is decoded, where there is one process
SAVE_S = 5.0  # between two writes of the index


class Progress(NamedTuple):
    """How many of the images were looked at."""

    done: int
    total: int


class _Job(NamedTuple):
    """An image to look at: its size alone, its facts, or all of its pixels."""

    entry: ImageEntry
    what: Literal["size", "facts", "whole"]


class Looks:
    """Looks at the images of a dataset, in the decoder processes that all datasets share. Any thread may call its methods.

    What was asked for last is looked at first. An image that cannot be read has a problem, and the others go on. It stops when
    the dataset is deleted, or with `close`.

    Args:
        dataset: whose images.
        decoders: the processes.
        linger_s: how long a thread without images waits for more.
    """

    def __init__(self, dataset: ImageSet, decoders: Decoders = SHARED, linger_s: float = LINGER_S) -> None:
        self._dataset, self._decoders, self._linger_s = dataset, decoders, linger_s
        self._found: dict[str, Looked] | None = None  # place -> what is known
        self._places: set[str] = set()
        self._asked: dict[str, ImageEntry] = {}  # by id
        self._unseen: dict[str, ImageEntry] = {}  # to be decoded; the first is next
        self._unsized: dict[str, ImageEntry] = {}  # those of them without a size
        self._unmade: dict[str, ImageEntry] = {}  # whose facts are known, but not all pixels were made
        self._busy: set[str] = set()
        self._changed = threading.Condition()
        self._threads = 0
        self._sizing, self._sized_in_a_row, self._making = False, 0, False
        self._closed = False
        self._unsaved = ""
        self._saved_at, self._dirty = 0.0, False

    def renew(self, entries: Sequence[ImageEntry]) -> None:
        """Look at all images of the dataset. Those that have not changed are done at once; what is gone is forgotten."""
        keys = _keys(entries)
        with self._changed:
            found = self._known()
            self._places = {entry.place for entry in entries}
            self._asked = {entry.id: entry for entry in entries}
            for place in [place for place in found if place not in self._places]:
                del found[place]
                self._dirty = True
            if not self._busy:  # no thumbnail is being written
                remove_others(self._dataset.looked, {thumbnail_name(place, looked.key) for place, looked in found.items()})
            self._unsized, self._unseen, self._unmade = {}, {}, {}
            self._ask(entries, keys)
            self._save(now=self._dirty)

    def first(self, entries: Sequence[ImageEntry]) -> None:
        """Look at these images before all others: those of a page, or new ones."""
        keys = _keys(entries)
        with self._changed:
            self._known()
            self._places |= {entry.place for entry in entries}
            self._asked.update((entry.id, entry) for entry in entries)
            self._ask(entries, keys)

    def prepare(self) -> None:
        """Start a decoder process, since an image is on its way."""
        with self._changed:
            if not self._closed and self._threads < 1:
                self._begin(early=True)

    def of(self, entry: ImageEntry) -> Looked | None:
        """What is known of an image; None before its size is."""
        with self._changed:
            return self._known().get(entry.place)

    def thumbnail(self, entry: ImageEntry) -> Path | None:
        """The JPEG of an image with a hidden name; None if there is none, for now or at all."""
        looked = self.of(entry)
        if looked is None or looked.facts is None:
            return None
        path = self._dataset.looked / thumbnail_name(entry.place, looked.key)
        return path if path.is_file() else None

    def thumbnail_of(self, image_id: str) -> Path | None:
        """As `thumbnail`, of an untrusted id. The dataset is not listed, since a page asks for many.."""
        with self._changed:
            entry = self._asked.get(image_id)
        return self.thumbnail(entry) if entry is not None and entry.path.is_file() else None

    def progress(self) -> Progress:
        """How many images of the last `renew`, and of every `first` since, were looked at."""
        with self._changed:
            left = len(self._unseen.keys() | self._busy)
            return Progress(len(self._places) - left, len(self._places))

    def unsaved(self) -> str:
        """Why thumbnails and results are not kept, as a sentence; empty if they are."""
        return self._unsaved

    def wait(self, seconds: float) -> bool:
        """Whether all is done after at most this time."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._waiting() or self._busy or self._making), seconds)

    def close(self) -> None:
        """Stop; what waits is not looked at. The image in the works is finished."""
        with self._changed:
            self._closed = True
            self._unsized, self._unseen, self._unmade = {}, {}, {}
            self._save(now=True)
            self._changed.notify_all()

    def _known(self) -> dict[str, Looked]:
        """What is known, from the disk at first."""
        if self._found is None:
            self._found = read(self._dataset.looked)
        return self._found

    def _ask(self, entries: Sequence[ImageEntry], keys: dict[str, FileKey]) -> None:
        """Put what is not known of these images in front, and start threads for it."""
        if self._closed:
            return
        found, there = self._known(), thumbnails(self._dataset.looked)
        unseen = {}
        for entry in entries:
            looked, key = found.get(entry.place), keys.get(entry.place)
            if key is None:
                continue
            if looked is not None and looked.key == key and looked.done:
                _share(entry, looked)
                if looked.facts is None or thumbnail_name(entry.place, key) in there:
                    if not looked.whole:
                        self._unmade[entry.place] = entry
                    continue
            if entry.place not in self._busy:
                unseen[entry.place] = entry
        unsized = {place: entry for place, entry in unseen.items() if not _is_sized(found.get(place), keys[place])}
        self._unseen, self._unsized = (
            {**unseen, **_without(self._unseen, unseen)},
            {**unsized, **_without(self._unsized, unsized)},
        )
        while self._threads < min(self._decoders.most, len(self._unseen) or bool(self._unmade)):
            self._begin()
        self._changed.notify_all()

    def _begin(self, *, early: bool = False) -> None:
        """Start a thread; if that is `early`, it has no image yet."""
        self._threads += 1
        threading.Thread(target=self._work, args=(early,), daemon=True, name="train-lora looks").start()

    def _work(self, early: bool) -> None:
        try:
            with self._decoders.used():
                if early:
                    with self._decoders.one() as reader, suppress(NoReaderError):  # the first image has the problem
                        reader.start()
                while job := self._next():
                    try:
                        with self._decoders.one() as reader:
                            self._do(job, reader)
                    finally:
                        self._ended(job)
        finally:
            with self._changed:
                self._threads -= 1
                self._changed.notify_all()

    def _next(self) -> _Job | None:
        """The next job; None if there was none for a while, or there is no dataset any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting(), self._linger_s)
            if not self._dataset.folder.is_dir():
                self._closed, self._unsized, self._unseen, self._unmade = True, {}, {}, {}
            if self._closed or not self._waiting():
                return None
            if not self._unseen:
                self._making = True
                return _Job(self._unmade.pop(next(iter(self._unmade))), "whole")
            header = bool(self._unsized) and not self._sizing and self._sized_in_a_row < IN_A_ROW
            waiting = self._unsized if header else self._unseen
            entry = waiting.pop(next(iter(waiting)))
            self._sized_in_a_row = self._sized_in_a_row + 1 if header else 0
            if header:
                self._sizing = True
            else:
                self._unsized.pop(entry.place, None)
                self._busy.add(entry.place)
            return _Job(entry, "size" if header else "facts")

    def _waiting(self) -> bool:
        """Whether there is something to do for one more thread. All pixels take much memory, so only one makes them."""
        return bool(self._unseen or (self._unmade and not self._making))

    def _do(self, job: _Job, reader: Reader) -> None:
        entry = job.entry
        try:
            key = key_of(entry.path)
            if job.what == "whole":
                looked = self._made(entry, key, reader)
            else:
                looked = Looked(key, reader.size(entry.path)) if job.what == "size" else self._decoded(entry, key, reader)
        except OSError:  # it is gone, which the next list of images says
            return
        except NoReaderError as error:
            self._give_up([] if job.what == "whole" else [entry], error)
            return
        except DatasetError as error:
            looked = Looked(key, problems=tuple(error.problems))
            if job.what == "whole" and isinstance(error, NotNowError):  # so training asks again
                return
            if job.what == "size":  # decoding says whether the rest is as damaged
                return
            if isinstance(error, NotNowError):
                looked = Looked(FileKey(-1, -1), problems=looked.problems)  # of no file: tried again when asked again
        if looked is not None:
            self._learn(entry, looked, header=job.what == "size")

    def _decoded(self, entry: ImageEntry, key: FileKey, reader: Reader) -> Looked:
        with suppress(OSError):  # told of the thumbnail
            make(self._dataset.looked)
        look = reader.look(entry.path, self._dataset.looked / thumbnail_name(entry.place, key), SIDE)
        self._tell_unsaved(look.unsaved)
        return Looked(key, look.facts.size, look.facts, whole=look.whole)

    def _made(self, entry: ImageEntry, key: FileKey, reader: Reader) -> Looked | None:
        """What is known of an image, once all of its pixels were made; None if they were, or the file is another one by now."""
        with self._changed:
            known = self._known().get(entry.place)
        if known is None or known.key != key or known.whole:
            return None
        reader.picture(entry.path)
        return replace(known, whole=True)

    def _learn(self, entry: ImageEntry, looked: Looked, *, header: bool) -> None:
        with self._changed:
            found = self._known()
            known = found.get(entry.place)
            if header and known is not None and known.key == looked.key:  # it was decoded meanwhile
                return
            if entry.place in self._places:
                found[entry.place] = looked
                self._dirty = self._dirty or looked.done
                if not looked.whole:
                    self._unmade[entry.place] = entry
        _share(entry, looked)

    def _give_up(self, entries: Sequence[ImageEntry], error: NoReaderError) -> None:
        """No image can be read for now: all that wait have the same problem."""
        with self._changed:
            found = self._known()
            for waiting in (*entries, *self._unseen.values()):
                found[waiting.place] = Looked(FileKey(-1, -1), problems=tuple(error.problems))
            self._unsized, self._unseen, self._unmade = {}, {}, {}

    def _ended(self, job: _Job) -> None:
        with self._changed:
            if job.what == "size":
                self._sizing = False
            elif job.what == "whole":
                self._making = False
                self._save(now=not self._waiting() and not self._busy)
            else:
                self._busy.discard(job.entry.place)
                self._save(now=not self._unseen and not self._busy)
            self._changed.notify_all()

    def _save(self, *, now: bool) -> None:
        """Write the index if it is time, or `now`, and the dataset is there."""
        if not self._dirty or not self._dataset.folder.is_dir() or not (now or time.monotonic() > self._saved_at + SAVE_S):
            return
        self._saved_at, self._dirty = time.monotonic(), False
        try:
            write(self._dataset.looked, self._known())
        except OSError as error:
            self._dirty = True
            self._tell_unsaved(error.strerror or str(error))

    def _tell_unsaved(self, why: str) -> None:
        self._unsaved = f"Thumbnails cannot be written ({why}); free some space or check the permissions." if why else ""


def _keys(entries: Iterable[ImageEntry]) -> dict[str, FileKey]:
    """The keys of the files, by place; without those that are gone."""
    keys = {}
    for entry in entries:
        with suppress(OSError):
            keys[entry.place] = key_of(entry.path)
    return keys


def _is_sized(looked: Looked | None, key: FileKey) -> bool:
    return looked is not None and looked.key == key and looked.size is not None


def _without(waiting: dict[str, ImageEntry], others: dict[str, ImageEntry]) -> dict[str, ImageEntry]:
    return {place: entry for place, entry in waiting.items() if place not in others}


def _share(entry: ImageEntry, looked: Looked) -> None:
    """Let the report know the result, so that it does not decode the image again. What may pass is not shared."""
    if looked.facts is not None:
        remember(entry.path, *looked.key, Picture(looked.facts.size, looked.facts.sha256), whole=looked.whole)
    elif looked.problems and looked.key.mtime_ns >= 0:
        remember(entry.path, *looked.key, DatasetError(list(looked.problems)))

"""One captioning at a time: who starts one, sees it and stops it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lib_lora.datasets.captioner_fields import captioning_options, read_values
from lib_lora.datasets.captioner_offers import Offer
from lib_lora.datasets.captioning import Captioning, CaptioningProgress
from lib_lora.datasets.image_set import ImageEntry, ImageSet
from lib_lora.errors import DatasetError


class BusyError(DatasetError):
    """Another task of this kind runs."""


class Started(NamedTuple):
    """A captioning, of which dataset, and by whom."""

    dataset: ImageSet
    captioner: str
    job: Captioning
    stopped: threading.Event


class Captionings:
    """The captioning that runs, or the last that did. Any thread may call its methods."""

    def __init__(self) -> None:
        self._last: Started | None = None
        self._lock = threading.Lock()

    def start(self, dataset: ImageSet, offer: Offer, given: Mapping[str, Any], entries: Sequence[ImageEntry]) -> None:
        """Begin to caption images.

        Args:
            dataset: the dataset of the images.
            offer: the captioner.
            given: untrusted values of its fields.
            entries: the images.

        Raises:
            BusyError: one runs already.
            DatasetError: a value is not allowed, something is missing on this computer, or no image is left to caption.
        """
        with self._lock:
            running = self.running
            if running is not None:
                told = (
                    f"{running.captioner} captions the dataset {running.dataset.name!r} now; wait until it is done, or stop it."
                )
                raise BusyError([told])
            values = read_values(offer.fields, given)
            job = Captioning(dataset, offer.make(values), entries, captioning_options(values))
            if not job.progress.total:
                raise DatasetError([_nothing(entries)])
            self._last = Started(dataset, offer.name, job, threading.Event())
            job.start()

    @property
    def running(self) -> Started | None:
        """The captioning that runs."""
        last = self._last
        return last if last is not None and last.job.progress.running else None

    def of(self, dataset: ImageSet) -> tuple[Started, CaptioningProgress] | None:
        """The captioning that runs, if it is of this dataset, or the last one was; and how far it is."""
        last = self._last
        return (last, last.job.progress) if last is not None and last.dataset is dataset else None

    def stop(self, dataset: ImageSet) -> None:
        """End the captioning of this dataset soon; captions that are done stay."""
        running = self.running
        if running is not None and running.dataset is dataset:
            running.stopped.set()
            running.job.stop()


def _nothing(entries: Sequence[ImageEntry]) -> str:
    if not entries:
        return "No image is shown, so none can be captioned; choose another filter."
    return "All images that are shown have a caption; choose to replace captions, or to append to them."

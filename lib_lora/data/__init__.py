"""From folders of images to batches: files, pixels, buckets, captions, token ids, order."""

"""From folders of photos to batches: files, pixels, buckets, captions, token ids, order."""

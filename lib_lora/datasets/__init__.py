"""Named datasets of the tab: their images, captions, crops and checks."""

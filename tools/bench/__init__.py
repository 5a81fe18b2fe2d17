"""`make bench`: speed and memory on this machine, compared with the arithmetic limit and, if installed, with kohya sd-scripts."""

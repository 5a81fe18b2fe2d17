"""`make bench`: speed and memory on this machine, beside the arithmetic limit and, where it is there, beside kohya sd-scripts."""

"""The settings of a run: declared once in `groups`, checked in `rules`, translated by `options`."""

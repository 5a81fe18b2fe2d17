"""The settings of a run: `groups` lists them, `options` parses them, `rules` checks them."""

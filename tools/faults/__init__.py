"""The fault campaign: which cases there are, what the tests said of each, and the report."""

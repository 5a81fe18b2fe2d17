"""The fault campaign: its cases, the outcomes of their tests, and the report."""

"""The tab: form, report, progress. The only floor that knows gradio."""

"""The tab: form, report, progress. The only folder that uses gradio."""

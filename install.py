"""Run by the webui at every start. Nothing is installed: all that training needs is in the webui already."""

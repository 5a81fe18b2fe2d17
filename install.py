"""Run by the webui at every start. Installs nothing: the webui already has all that training needs."""

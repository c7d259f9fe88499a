"""The history of a changed run, and its continuation. Imported only when used."""

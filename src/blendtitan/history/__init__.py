"""What a changed run read before, and how it continues. Imported only when used."""

"""Formats that ``blendtitan convert`` reads, one module each."""

"""The global order as pure arithmetic: the sample of each slot. Opens no file."""

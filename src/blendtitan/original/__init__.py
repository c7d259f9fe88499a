"""The order of the original BlendCorpus. Imported only when used."""

"""The search for a blend: many blends of the same corpora, and what runs of them lost."""

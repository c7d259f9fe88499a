"""One file for each engine.

``open_batches(request, source)`` returns an iterator of ``(inputs, labels)``, int64 tensors of
shape ``(batch, seq_len)``, that never ends. ``once(request, source)``, where an engine has it, does
one thing that is timed, for requests without a batch. Importing the file imports all that the
engine needs: imports are not timed.
"""

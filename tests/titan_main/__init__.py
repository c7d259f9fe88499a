"""TorchTitan is imported for the device of this machine, and before warnings are errors."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyTorch's own
    from blendtitan.titan import prepare

    prepare()
    import blendtitan.titan.trainer  # noqa: F401

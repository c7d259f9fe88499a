"""Training with TorchTitan 0.2.0 to 0.2.2, through its own hooks. With 0.3: ``blendtitan.titan``.

In a TOML file of TorchTitan 0.2:

    [job]
    custom_config_module = "blendtitan.titan02.config"
    [experimental]
    custom_import = "blendtitan.titan02.models"

``python -m blendtitan.titan02.train`` sets both, and also trains on a CPU. Importing this package
imports no torchtitan.
"""

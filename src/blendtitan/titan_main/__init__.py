"""Training with the main branch of TorchTitan, whose batches are flat: ``(T,)`` tokens.

    torchrun -m blendtitan.titan.train --module blendtitan.titan_main --config llama3_8b
        --hf_assets_path assets/tokenizer --dataloader.data_file_list data/file_list.txt

Written for commit b5bcd76c6 (August 2026). Importing this package imports no torchtitan.
"""

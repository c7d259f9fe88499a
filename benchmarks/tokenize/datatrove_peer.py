"""JSON lines to Megatron shards with datatrove, one task for each input file.

python datatrove_peer.py FOLDER OUTPUT TOKENIZER.json WORKERS
"""

import sys

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens.megatron_tokenizer import MegatronDocumentTokenizer

if __name__ == "__main__":
    folder, output, tokenizer, workers = sys.argv[1:]
    LocalPipelineExecutor(
        pipeline=[
            JsonlReader(folder),
            MegatronDocumentTokenizer(
                output, tokenizer_name_or_path=tokenizer, eos_token="</s>", batch_size=1000
            ),
        ],
        tasks=2,
        workers=int(workers),
        logging_dir=f"{output}/logs",
    ).run()

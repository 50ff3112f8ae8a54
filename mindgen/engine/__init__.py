"""The engine: step() = schedule -> run -> postprocess. It works on token ids and knows no tokenizer."""

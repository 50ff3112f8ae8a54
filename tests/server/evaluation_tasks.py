"""Tasks of lm-eval, a kind of request each, as a folder of YAML files with their data beside them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "Greece": "Athens", "Austria": "Vienna", "Hungary": "Budapest", "Poland": "Warsaw", "Sweden": "Stockholm",
    "Norway": "Oslo", "Finland": "Helsinki", "Denmark": "Copenhagen", "Ireland": "Dublin", "Belgium": "Brussels",
    "Egypt": "Cairo", "Kenya": "Nairobi", "Japan": "Tokyo", "China": "Beijing", "Thailand": "Bangkok",
    "Vietnam": "Hanoi", "Peru": "Lima", "Cuba": "Havana", "Canada": "Ottawa",
}  # fmt: skip
LETTERS = "ABCD"
_METRICS = {
    "multiple_choice": ["acc", "acc_norm"],
    "loglikelihood": ["acc", "perplexity"],
    "loglikelihood_rolling": ["word_perplexity", "bits_per_byte"],
    "generate_until": ["exact_match"],
}


def write_tasks(folder: Path, passages: list[str]) -> list[str]:
    """Names of the tasks.

    Args:
        passages: that are scored as a whole.
    """
    question, answer = "The capital of {{country}} is", " {{choices[answer]}}"
    listed = "".join(f"\n{letter}. {{{{choices[{place}]}}}}" for place, letter in enumerate(LETTERS))
    tasks = {
        "capital_choice": {
            "output_type": "multiple_choice",
            "doc_to_text": question,
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{answer}}",
        },
        "capital_letter": {
            "output_type": "multiple_choice",
            "doc_to_text": f"What is the capital of {{{{country}}}}?{listed}\nAnswer:",
            "doc_to_choice": list(LETTERS),
            "doc_to_target": "{{answer}}",
            "num_fewshot": 2,
            "fewshot_config": {"sampler": "first_n"},
            "fewshot_split": "test",
        },
        "capital_likelihood": {"output_type": "loglikelihood", "doc_to_text": question, "doc_to_target": answer},
        "passages": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}"},
        "capital_text": {
            "output_type": "generate_until",
            "doc_to_text": question,
            "doc_to_target": answer,
            "generation_kwargs": {"until": [".", "\n"], "max_gen_toks": 12, "do_sample": False},
        },
    }
    for name, task in tasks.items():
        documents = [{"text": text} for text in passages] if name == "passages" else list(_capitals())
        _write_task(folder, name, task, documents)
    return list(tasks)


def _capitals() -> Iterator[dict[str, Any]]:
    """Questions with the right answer among those of the countries that follow, at each place as often."""
    countries = list(CAPITALS)
    for index, country in enumerate(countries):
        answer = index % len(LETTERS)
        others = [CAPITALS[countries[(index + step) % len(countries)]] for step in range(1, len(LETTERS))]
        choices = [*others[:answer], CAPITALS[country], *others[answer:]]
        yield {"country": country, "choices": choices, "answer": answer}


def _write_task(folder: Path, name: str, task: dict[str, Any], documents: list[dict[str, Any]]) -> None:
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in documents))
    task |= {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "metric_list": [{"metric": metric} for metric in _METRICS[task["output_type"]]],
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))

"""What the policy is to learn: questions, and a rule that says what an answer is worth."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from mindgen.llm import LLM

_QUESTIONS = (
    "What is the capital of France?", "Why is the sky blue?", "How do I boil an egg?", "What is a computer?",
    "Who wrote Romeo and Juliet?", "How can I sleep better?", "What is photosynthesis?", "Tell me about the moon.",
    "What is the largest ocean?", "How do birds fly?", "Why do we need water?", "What is a good breakfast?",
    "What is gravity?", "Tell me about cats.", "How far away is the sun?", "What is a volcano?",
    "What is the capital of Japan?", "How do I make tea?", "What is music?", "Why is exercise healthy?",
    "What is the internet?", "How do plants grow?", "What is a rainbow?", "Tell me about dogs.",
)  # fmt: skip
_OPENINGS = ("I love", "The capital of", "One,", "A city in", "I live in", "Paris", "I visited", "An")
_WORDS = 8


@dataclass(frozen=True, slots=True)
class Task:
    """
    Attributes:
        system: the system message; None for none.
        begun: what each answer begins with, given to the model; it is part of what is judged.
        reward: from 0 to 1, of an answer and whether it has ended by itself.
    """

    questions: tuple[str, ...]
    system: str | None
    begun: str
    reward: Callable[[str, bool], float]

    def prompts(self, llm: LLM) -> list[list[int]]:
        """The token ids of each question in the model's chat template."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        texts = [llm.chat_prompt([*system, {"role": "user", "content": each}])["prompt"] for each in self.questions]
        return [llm.encode(text + self.begun, add_special_tokens=False) for text in texts]


def json_reward(answer: str, has_ended: bool) -> float:
    """1 for a JSON object with nothing around it, 0 for anything else."""
    try:
        return float(has_ended and isinstance(json.loads(answer), dict))
    except (ValueError, RecursionError):
        return 0.0


def eight_words_reward(answer: str, has_ended: bool) -> float:
    """1 for an answer of eight words, less the farther away it is; 0 for one that was cut off."""
    return max(0.0, 1 - abs(len(answer.split()) - _WORDS) / _WORDS) if has_ended else 0.0


TASKS = {
    "json": Task(_QUESTIONS, "Answer in one short sentence, as JSON.", '{"answer": "', json_reward),
    "eight_words": Task(_OPENINGS, None, "", eight_words_reward),
}

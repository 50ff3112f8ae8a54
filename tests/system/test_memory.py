"""What the collector of garbage passes over; each in a process of its own, as it holds for all of a process."""

import subprocess
import sys

KEPT = """
import gc, weakref
from mindgen.system.memory import keep_heap

class Node:
    pass

def ring():
    node = Node()
    node.itself = node
    return weakref.ref(node)

before = ring()
kept = Node()
keep_heap()
after = ring()
gc.collect()
print(before() is None, gc.is_tracked(kept), any(each is kept for each in gc.get_objects()), after() is None)
"""
SPARED = """
import gc
from mindgen.system.memory import sparing_collector

kept = [[]]
with sparing_collector():
    inside = any(each is kept for each in gc.get_objects())
print(inside, any(each is kept for each in gc.get_objects()))
"""


def printed(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout


def test_the_heap_of_now_is_kept_and_later_garbage_is_not():
    assert printed(KEPT) == "True True False True\n"


def test_the_collector_spares_what_is_there_for_a_while():
    assert printed(SPARED) == "False True\n"

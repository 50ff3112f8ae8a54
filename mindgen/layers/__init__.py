"""The building blocks that the networks share.

Letters in shape comments: T tokens of the batch, B sequences, R rows asked for, H hidden size, D head size,
Hq and Hkv query and key/value heads, E adapter slots (slot 0 is the base model), r rank.
"""

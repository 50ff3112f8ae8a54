"""S-LoRA: which adapters exist (registry), what is in them (loader), which are in memory (pool)."""

"""Run folders: card, ledger, staged tiles, mask, and whether they still agree."""

"""Commands of `overtile`, one module each; `flows.cli` registers them."""

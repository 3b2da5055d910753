"""Models by name: their files, and engines and tokenizers built from them."""

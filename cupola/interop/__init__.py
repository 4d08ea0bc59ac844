"""Models of others: their files, names, tokenizers and chat templates, read without running their code."""

"""Text as it is spoken: numbers and signs in words, sentences, and the symbols that a speech model reads."""

"""From rows of texts, words, questions to tokens."""

"""From any source of text to tokenised sentences."""

"""A teacher of one's own: a Unigram tokenizer and a masked language model, where no pretrained encoder is at hand."""

"""A classifier of hate, abuse and profanity: labelled sets, training, thresholds, and a functional suite that only measures."""

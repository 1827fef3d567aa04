"""What all pages of results share: template, style, numbers."""

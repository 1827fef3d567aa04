"""AutoDistil (arXiv 2201.12507): one training makes a family of students that share their weights."""

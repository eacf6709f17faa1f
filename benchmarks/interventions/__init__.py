"""Check the verdict on pipelines of any shape: the truth is what a change to them does."""

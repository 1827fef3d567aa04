"""`python -m kdnas`, and `accelerate launch -m kdnas`."""

from kdnas.cli import main

main()

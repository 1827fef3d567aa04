"""`python -m kdnas`, and `accelerate launch -m kdnas`."""

from kdnas.cli import main

if __name__ == "__main__":  # a data worker reads this file under another name
    main()

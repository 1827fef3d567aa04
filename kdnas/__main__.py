"""`python -m kdnas`, and `accelerate launch -m kdnas`."""

from kdnas.cli import main

if __name__ == "__main__":  # data workers import this file under another name
    main()

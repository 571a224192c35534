"""Load a running exchange: python benchmarks/load.py --rate 5000 --duration 10; see --help."""

from rtb.lab.load.command import main

if __name__ == "__main__":
    main()

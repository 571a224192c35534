"""Run the daemon's HTTP edge with nothing behind it: python benchmarks/null_server.py --port 8081"""

from rtb.lab.null_server import main

if __name__ == "__main__":
    main()

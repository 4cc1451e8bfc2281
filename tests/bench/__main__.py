"""`python -m tests.bench`: the stages are in a module of their own, so that the processes they start can import them."""

from tests.bench.stages import main

main()

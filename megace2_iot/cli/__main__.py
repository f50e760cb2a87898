"""`python -m megace2_iot.cli`: the same as `megace2`."""

from megace2_iot.cli import main

main()

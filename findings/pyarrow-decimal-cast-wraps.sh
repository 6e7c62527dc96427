#!/bin/bash
# pyarrow 25.0.1: a *safe* cast to decimal128 wraps around at 128 bits where the scaled value does not
# fit, as long as what is left has 38 digits or fewer. Casts from text, from decimals of another scale
# and in pyarrow.compute are concerned; safe=True is documented to raise.
#
# Output seen:
#   decimal128(5,2) -70.57 as decimal128(38,37): -2.5135266158123073073250785136463577088
#   text '-8751178276354246509' as decimal128(38,30): -79234703.616437623726234353120678248448
#   text '-8.09e39' as decimal128(38,4): 9104125159405763653266925830166439.5264
#   int64 5000000000000000000 as decimal128(38,22): refused
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/v"
"$folder/v/bin/pip" install -q --disable-pip-version-check 'pyarrow==25.0.1'
"$folder/v/bin/python" - <<'PY'
from decimal import Decimal

import pyarrow as pa

cases = [
    ("decimal128(5,2) -70.57", pa.array([Decimal("-70.57")], pa.decimal128(5, 2)), (38, 37)),
    ("text '-8751178276354246509'", pa.array(["-8751178276354246509"]), (38, 30)),
    ("text '-8.09e39'", pa.array(["-8.09e39"]), (38, 4)),
    ("int64 5000000000000000000", pa.array([5 * 10**18]), (38, 22)),
]
wrapped = 0
for name, array, (precision, scale) in cases:
    try:
        found = str(array.cast(pa.decimal128(precision, scale))[0].as_py())
        wrapped += 1
    except pa.ArrowInvalid:
        found = "refused"
    print(f"{name} as decimal128({precision},{scale}): {found}")
raise SystemExit(wrapped != 3)
PY

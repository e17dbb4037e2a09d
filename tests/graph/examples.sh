#!/bin/sh
# examples.sh NEXT_TOKEN COMPARE REPLACE_LAYER MODEL - the example programs run and say what they must.
set -e
fail() { echo "$1"; exit 1; }

out=$("$1" "$4" "Once upon a")
[ "$(echo "$out" | wc -l)" = 5 ] || fail "next_token prints five tokens: $out"
echo "$out" | head -1 | grep -q '"[^"]*time' || fail "the likeliest word after Once upon a is time: $out"
same=$("$2" "$4" 3 "The cat sleeps." "The cat sleeps.")
[ "$same" = 1.0000 ] || fail "a text is like itself: $same"
near=$("$2" "$4" 3 "The cat sleeps." "The dog sleeps.")
awk "BEGIN { exit !($near < 0.99999) }" || fail "two texts differ: $near"
if "$2" "$4" 99 a b 2>/dev/null; then fail "there is no layer 99"; fi
out=$("$3" "$4" 0 "There was a")
echo "$out" | grep -q '^with: *[0-9]* "[^"]*house' || fail "with every layer it is house: $out"
[ "$(echo "$out" | sed 's/^[a-z]*: *//' | sort -u | wc -l)" = 2 ] || fail "without layer 0 it is not: $out"

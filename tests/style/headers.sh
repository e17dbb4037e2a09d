#!/bin/sh
# headers.sh ROOT - every header compiles alone, and its guard is its path. A header without a guard
# is a template, which only makes sense where it is included.
cd "$1" || exit 2
bad=0
errors=$(mktemp)

for h in include/gemmad/*.h src/*/*.h; do
    grep -q '^#ifndef .*_H$' "$h" || continue
    # Vector code, for the flags and sizes that the including file has.
    case $h in src/kernels/*simd*.h | src/kernels/matmul_f32.h) continue ;; esac
    ${CC:-cc} -std=c11 -D_GNU_SOURCE -Wall -Werror -Iinclude -Isrc -fsyntax-only -x c "$h" 2>"$errors" ||
        { echo "$h does not compile alone:"; head -n 5 "$errors"; bad=1; }
    guard=$(echo "${h#*/}" | tr 'a-z/.-' 'A-Z___')
    grep -q "^#ifndef $guard\$" "$h" || { echo "$h: the guard should be $guard"; bad=1; }
done
rm -f "$errors"
exit $bad

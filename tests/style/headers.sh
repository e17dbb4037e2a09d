#!/bin/sh
# headers.sh ROOT - every header compiles alone, and its guard is its path.
cd "$1" || exit 2
bad=0

for h in include/gemmad/*.h src/*/*.h; do
    # Vector types: only their own library is compiled with the flags for them.
    case $h in src/kernels/simd*.h) continue ;; esac
    ${CC:-cc} -std=c11 -D_GNU_SOURCE -Wall -Werror -Iinclude -Isrc -fsyntax-only -x c "$h" 2>/tmp/headers.$$ ||
        { echo "$h does not compile alone:"; head -n 5 /tmp/headers.$$; bad=1; }
    guard=$(echo "${h#*/}" | tr 'a-z/.-' 'A-Z___')
    grep -q "^#ifndef $guard\$" "$h" || { echo "$h: the guard should be $guard"; bad=1; }
done
rm -f /tmp/headers.$$
exit $bad

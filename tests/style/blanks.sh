#!/bin/sh
# blanks.sh ROOT - no tabs, no blanks at the end of a line, a newline at the end of every file.
cd "$1" || exit 2
find . \( -name .git -o -path './build*' -o -path ./data -o -path ./tests/golden \
    -o -path ./tests/fuzz/corpus -o -path ./shared -o -name __pycache__ \) -prune -o -type f -exec sh -c '
tab=$(printf "\t") bad=0
for f; do
    grep -nH "$tab\|[ $tab]\$" "$f" && bad=1
    [ -z "$(tail -c 1 "$f")" ] || { echo "$f: no newline at the end"; bad=1; }
done
exit $bad' sh {} +

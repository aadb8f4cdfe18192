#!/usr/bin/env bash
# Runs the gate and writes its table to the job's summary. Takes its inputs from the environment, see action.yml:
# TESTS, WORKLOAD and ARGUMENTS as there; BASELINES, the folder in this change; HELD, that of the base branch.
set -euo pipefail

report="${RUNNER_TEMP:?}/report.md"
rm -f "$report"
# Should all else break, something could not be measured.
printf '%s\n' "report=$report" "status=8" >>"$GITHUB_OUTPUT"

if [[ ! -d "$HELD" ]]; then
  echo "::warning::the base branch has no folder $BASELINES, so this change is held to the baselines that it brings"
  HELD="$BASELINES"
fi
options=(--benchmark-compare "--compress-baselines=$HELD" "--compress-report=$report")
if [[ -n "$WORKLOAD" ]]; then
  options+=("--compress-workload=$WORKLOAD")
fi
read -r -a further <<<"$ARGUMENTS"

status=0
python -m pytest "$TESTS" "${options[@]}" "${further[@]}" || status=$?
echo "status=$status" >>"$GITHUB_OUTPUT"

if [[ ! -s "$report" ]]; then
  printf '### %s\n\n%s\n' "Compressed models: could not measure" "The gate ended with status $status before it had a table." >"$report"
fi
for new in "$BASELINES"/*.json; do
  old="$HELD/$(basename "$new")"
  if [[ -f "$new" && -f "$old" ]] && ! cmp --quiet "$old" "$new"; then
    # A baseline that gets worse is for a reviewer to judge; what it says is shown.
    printf '\n#### this change edits %s\n\n' "$new" >>"$report"
    python -m compress diff --markdown "$old" "$new" >>"$report" || true
  fi
done
cat "$report" >>"$GITHUB_STEP_SUMMARY"
exit "$status"

#!/usr/bin/env bash
# Handles what is in the inbox, one after the other, in the order of arrival. Run one.
#
# A file in the inbox waits while it has content. What is done is emptied and stays, so that its id is
# known; beyond max_ids the oldest go.
set -uo pipefail

readonly max_ids=10000

# handle ID: your work goes here; the event is on stdin.
handle() {
    local event
    event=$(cat)
    [[ -n $event ]] || return 1
    printf '%(%FT%T%z)T processed %s\n' -1 "$1" >&2
}

# waiting: the names of what waits, the oldest first.
waiting() {
    local name time
    find "$INBOX" -type f -size +0 -printf '%f\n' | while IFS= read -r name; do
        read -r time <"$INBOX/$name" && printf '%s %s\n' "$time" "$name"
    done | sort -n | cut -d ' ' -f 2
}

while sleep 0.2; do
    while IFS= read -r name; do
        id=${name#id.}
        printf -v id '%b' "${id//%/\\x}" # as jq's @uri has written it
        tail -n +2 "$INBOX/$name" | handle "$id" || printf 'failed %s\n' "$id" >&2
        printf '%s\n' "$id" >>"$STATE_DIRECTORY/processed"
        : >"$INBOX/$name"
    done < <(waiting)
    if (($(wc -l <"$STATE_DIRECTORY/processed") > 2 * max_ids)); then
        tail -n "$max_ids" "$STATE_DIRECTORY/processed" >"$STATE_DIRECTORY/processed.new"
        mv "$STATE_DIRECTORY/processed.new" "$STATE_DIRECTORY/processed"
    fi
    find "$INBOX" -type f -size 0 -printf '%T@ %f\n' | sort -rn | tail -n +$((max_ids + 1)) |
        cut -d ' ' -f 2 | (cd "$INBOX" && xargs -r rm -f --)
done

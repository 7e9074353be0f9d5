#!/usr/bin/env bash
# Answers one request on stdin and stdout; server.sh has socat start it for each connection.
set -uo pipefail
shopt -s nullglob
cd "$(dirname "$0")" || exit 1
. ./verify.sh

readonly max_body_bytes=$((2 * 1024 * 1024))
readonly read_seconds=10
readonly max_headers=100
readonly max_waiting=1000

log() { printf '%(%FT%T%z)T %s\n' -1 "$*" >&2; }

# answer STATUS [TEXT [HEADER]]: and end.
answer() {
    printf 'HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n%s' \
        "$1" "${#2}" "${3:+$3$'\r\n'}" "$2"
    exit 0
}

# refuse_unread STATUS TEXT: an answer before the body was read. Some of it is taken in all the same:
# socat drops an answer that it has not passed on when it finds nobody to take the body.
refuse_unread() {
    (answer "$@")
    timeout 1 head -c "$max_body_bytes" >/dev/null
    exit 0
}

# events_of ID BODY: a file in $folder/events for each event of a verified body, named by its id: one
# with the message's id, or those of a batch with theirs. Its first line is the time, the order of
# work. Fails when the body is no JSON or a member has no id.
events_of() {
    local name member
    mkdir "$folder/events" || return 1
    # Two lines for each: the id as a file name, and the JSON; of a single event the body is kept.
    jq -rcs --arg id "$1" '
        if length == 1 then .[0] else error("not one document") end
        | if type == "array" then .[] | (.id | strings | @uri) // error("no id"), .
          else ($id | @uri), "" end' "$2" >"$folder/lines" 2>/dev/null || return 1
    while IFS= read -r name && IFS= read -r member; do
        {
            printf '%s\n' "${EPOCHREALTIME/[.,]/}"
            if [[ -n $member ]]; then printf '%s\n' "$member"; else cat "$2"; fi
        } >"$folder/events/id.$name"
    done <"$folder/lines"
}

# take FILE: puts an event into the inbox, once. A hard link fails when there is one of that name: to
# look and to take are one step, also between processes.
take() {
    local place=$INBOX/${1##*/}
    ln "$1" "$place" 2>/dev/null && return 0
    [[ -e $place ]] && log "repeated ${1##*/}"
}

receive() {
    local folder body file
    [[ $length =~ ^[0-9]{1,12}$ ]] || refuse_unread '411 Length Required' 'content-length needed'
    ((10#$length <= max_body_bytes)) || refuse_unread '413 Content Too Large' 'body too large'
    # What is linked into the inbox must lie on its file system.
    folder=$(mktemp -d "$STATE_DIRECTORY/request.XXXXXX") || answer '500 Internal Server Error' error
    trap "rm -rf '$folder'" EXIT
    body=$folder/body
    timeout "$read_seconds" head -c "$length" >"$body"
    (($(stat -c %s "$body") == 10#$length)) || answer '408 Request Timeout' 'body too slow'
    if ! verify "$WEBHOOK_SECRET" "$id" "$timestamp" "$signatures" "$body"; then
        log "refused: $reason"
        answer '401 Unauthorized' 'invalid signature'
    fi
    events_of "$id" "$body" ||
        answer '400 Bad Request' 'not a JSON event, nor an array of events with ids'
    (($(find "$INBOX" -type f -size +0 | wc -l) < max_waiting)) ||
        answer '503 Service Unavailable' busy 'Retry-After: 5'
    for file in "$folder"/events/*; do
        take "$file" || answer '500 Internal Server Error' error # no space, or a name too long
    done
    answer '202 Accepted' ''
}

# processed: the ids that were handled, as JSON.
processed() {
    local ids list
    mapfile -t ids <"$STATE_DIRECTORY/processed"
    printf -v list '"%s", ' "${ids[@]//[\"\\]/}"
    ((${#ids[@]})) || list=''
    answer '200 OK' "{\"processed\": [${list%, }]}"
}

read -r -t "$read_seconds" method path _ || exit 0
id='' timestamp='' signatures='' length=''
for ((n = 0; n <= max_headers; n++)); do
    IFS= read -r -t "$read_seconds" -n 8192 line || exit 0
    line=${line%$'\r'}
    [[ -n $line ]] || break
    value=${line#*:}
    value=${value#"${value%%[! ]*}"}
    name=${line%%:*}
    case ${name,,} in
    webhook-id) id=$value ;;
    webhook-timestamp) timestamp=$value ;;
    webhook-signature) signatures=$value ;;
    content-length) length=$value ;;
    esac
done

case "$method $path" in
'POST /webhooks') receive ;;
'GET /processed') processed ;;
'GET /healthz') answer '200 OK' ok ;;
*) answer '404 Not Found' 'not found' ;;
esac

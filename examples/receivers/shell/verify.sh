# docs:start verify
readonly tolerance_seconds=300
readonly max_signatures=10 # each costs a process

# key_of SECRET: the key that a secret stands for, in hexadecimal; fails when it is none.
key_of() {
    [[ $1 =~ ^whsec_[A-Za-z0-9+/]+=*$ ]] || return 1
    local hex
    hex=$(base64 -d <<<"${1#whsec_}" | od -An -v -tx1) || return 1
    printf '%s' "${hex//[[:space:]]/}"
}

# signature_of KEY ID TIMESTAMP FILE: the base64 of HMAC-SHA256 over id.timestamp.body.
signature_of() {
    { printf '%s.%s.' "$2" "$3" && cat "$4"; } |
        openssl dgst -sha256 -mac HMAC -macopt "hexkey:$1" -binary | base64
}

# blinded TEXT: its hash under a random key. To compare two of these takes a time that tells nothing
# about the texts.
blinded() {
    printf '%s' "$1" | openssl dgst -sha256 -hmac "$nonce" -r
}

# verify SECRETS ID TIMESTAMP SIGNATURES FILE: whether the holder of a secret has sent the bytes in
# FILE just now. Secrets are separated by spaces: there are two of them while you rotate. The reason
# why not is in $reason, for your log; tell the sender nothing but 401.
verify() {
    local secret key expected given now nonce secrets signatures
    reason="missing header"
    [[ -n $2 && -n $3 && -n $4 ]] || return 1
    reason="malformed timestamp"
    [[ $3 =~ ^[0-9]{1,12}$ ]] || return 1
    reason="timestamp too far from now"
    printf -v now '%(%s)T' -1
    ((now - 10#$3 <= tolerance_seconds && 10#$3 - now <= tolerance_seconds)) || return 1
    reason="no matching signature"
    nonce=$(openssl rand -hex 32)
    IFS=' ' read -ra secrets <<<"$1"
    IFS=' ' read -ra signatures <<<"$4"
    for secret in "${secrets[@]}"; do
        key=$(key_of "$secret") || continue
        expected=$(blinded "v1,$(signature_of "$key" "$2" "$3" "$5")")
        for given in "${signatures[@]:0:max_signatures}"; do
            [[ $given =~ ^v1,[A-Za-z0-9+/]{43}=$ && $(blinded "$given") == "$expected" ]] && return 0
        done
    done
    return 1
}
# docs:end verify

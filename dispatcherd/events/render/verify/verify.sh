# verify SECRET ID TIMESTAMP SIGNATURES <body: for a look by hand; the key is seen in `ps` meanwhile.
verify() {
  age=$(($(date +%s) - $3))
  [ "${age#-}" -le 300 ] || return 1 # older than five minutes: perhaps played back
  key=$(printf %s "${1#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
  right=v1,$({ printf %s "$2.$3." && cat; } |
    openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)
  case " $4 " in *" $right "*) return 0 ;; *) return 1 ;; esac
}

package main

// docs:start verify
import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const tolerance = 5 * time.Minute

// keysOf returns the keys that secrets stand for. Secrets are separated by spaces: there are two of
// them while you rotate.
func keysOf(secrets string) ([][]byte, error) {
	var keys [][]byte
	for _, secret := range strings.Fields(secrets) {
		encoded, found := strings.CutPrefix(secret, "whsec_")
		key, err := base64.StdEncoding.DecodeString(encoded)
		if !found || err != nil {
			return nil, errors.New("a secret is whsec_ and base64")
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no secret")
	}
	return keys, nil
}

// verify returns the id of a request that the holder of a key has sent, just now. Its error is for
// your log; tell the sender nothing but 401. The body is the raw bytes as they arrived: JSON that was
// parsed and written anew has another signature.
func verify(keys [][]byte, header http.Header, body []byte, now time.Time) (string, error) {
	id := header.Get("webhook-id")
	timestamp := header.Get("webhook-timestamp")
	signatures := header.Get("webhook-signature")
	if id == "" || timestamp == "" || signatures == "" {
		return "", errors.New("missing header")
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return "", errors.New("malformed timestamp")
	}
	if now.Sub(time.Unix(seconds, 0)).Abs() > tolerance {
		return "", errors.New("timestamp too far from now")
	}
	for _, key := range keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + timestamp + "."))
		mac.Write(body)
		expected := mac.Sum(nil)
		for _, given := range strings.Split(signatures, " ") {
			encoded, found := strings.CutPrefix(given, "v1,")
			signature, err := base64.StdEncoding.DecodeString(encoded)
			// hmac.Equal takes as long for a wrong signature as for one that is nearly right.
			if found && err == nil && hmac.Equal(signature, expected) {
				return id, nil
			}
		}
	}
	return "", errors.New("no matching signature")
}

// docs:end verify

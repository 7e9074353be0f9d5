require "base64"
require "openssl"

# Names of headers in lower case; body: the bytes as they came, not JSON that was written again.
def verify(secret, headers, body)
  id, sent = headers.values_at("webhook-id", "webhook-timestamp")
  return false if (Time.now.to_i - Integer(sent, 10)).abs > 300 # old: perhaps played back

  key = Base64.strict_decode64(secret.delete_prefix("whsec_"))
  digest = OpenSSL::HMAC.digest("SHA256", key, "#{id}.#{sent}.".b + body.b)
  right = "v1,#{Base64.strict_encode64(digest)}"
  headers["webhook-signature"].split(" ").any? { |one| OpenSSL.secure_compare(right, one) }
end

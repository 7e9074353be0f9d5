# frozen_string_literal: true

# docs:start verify
require "openssl"

# Verifies signatures of Standard Webhooks.
class Verifier
  TOLERANCE_SECONDS = 300

  # Not verified. The message is for your log; tell the sender nothing but 401.
  class Refused < StandardError; end

  # Secrets are separated by spaces: there are two of them while you rotate.
  def initialize(secrets)
    @keys = secrets.split.map do |secret|
      raise ArgumentError, "a secret is whsec_ and base64" unless secret.start_with?("whsec_")

      secret.delete_prefix("whsec_").unpack1("m0")
    end
    raise ArgumentError, "no secret" if @keys.empty?
  end

  # The id of a request that the holder of a key has sent, just now. `headers` maps names in lower
  # case to values; `body` is the raw bytes as they arrived: JSON that was parsed and generated anew
  # has another signature.
  def verify(headers, body, now: Time.now)
    id, timestamp, signatures =
      headers.values_at("webhook-id", "webhook-timestamp", "webhook-signature").map(&:to_s)
    raise Refused, "missing header" if [id, timestamp, signatures].any?(&:empty?)
    raise Refused, "malformed timestamp" unless timestamp.match?(/\A[0-9]{1,12}\z/)
    raise Refused, "timestamp too far from now" if (now.to_i - timestamp.to_i).abs > TOLERANCE_SECONDS

    signed = "#{id}.#{timestamp}.".b + body.b
    expected = @keys.map { |key| "v1,#{[OpenSSL::HMAC.digest('SHA256', key, signed)].pack('m0')}" }
    given = signatures.split
    # secure_compare takes as long for a wrong signature as for one that is nearly right.
    matches = given.product(expected).any? { |one, other| OpenSSL.secure_compare(one, other) }
    raise Refused, "no matching signature" unless matches

    id
  end
end
# docs:end verify

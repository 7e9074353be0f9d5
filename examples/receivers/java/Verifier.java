// docs:start verify
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.List;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** Verifies signatures of Standard Webhooks. */
public final class Verifier {
    private static final Duration TOLERANCE = Duration.ofMinutes(5);

    /** Not verified. The message is for your log; tell the sender nothing but 401. */
    public static final class Refused extends Exception {
        private static final long serialVersionUID = 1;

        Refused(String message) {
            super(message);
        }
    }

    private final List<SecretKeySpec> keys;

    /** Secrets are separated by spaces: there are two of them while you rotate. */
    public Verifier(String secrets) {
        keys = Stream.of(secrets.split(" ")).filter(s -> !s.isEmpty()).map(Verifier::key).toList();
        if (keys.isEmpty()) {
            throw new IllegalArgumentException("no secret");
        }
    }

    private static SecretKeySpec key(String secret) {
        if (!secret.startsWith("whsec_")) {
            throw new IllegalArgumentException("a secret is whsec_ and base64");
        }
        byte[] key = Base64.getDecoder().decode(secret.substring("whsec_".length()));
        return new SecretKeySpec(key, "HmacSHA256");
    }

    /**
     * The id of a request that the holder of a key has sent, just now. {@code header} gives the value
     * of a header or null; {@code body} is the raw bytes as they arrived: JSON that was parsed and
     * written anew has another signature.
     */
    public String verify(UnaryOperator<String> header, byte[] body, Instant now) throws Refused {
        String id = header.apply("webhook-id");
        String timestamp = header.apply("webhook-timestamp");
        String signatures = header.apply("webhook-signature");
        if (id == null || id.isEmpty() || timestamp == null || signatures == null) {
            throw new Refused("missing header");
        }
        if (!timestamp.matches("[0-9]{1,12}")) {
            throw new Refused("malformed timestamp");
        }
        Instant sentAt = Instant.ofEpochSecond(Long.parseLong(timestamp));
        if (Duration.between(sentAt, now).abs().compareTo(TOLERANCE) > 0) {
            throw new Refused("timestamp too far from now");
        }
        byte[] head = (id + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8);
        for (SecretKeySpec key : keys) {
            String expected = "v1," + Base64.getEncoder().encodeToString(hmac(key, head, body));
            for (String given : signatures.split(" ")) {
                // isEqual takes as long for a wrong signature as for one that is nearly right.
                if (MessageDigest.isEqual(bytes(given), bytes(expected))) {
                    return id;
                }
            }
        }
        throw new Refused("no matching signature");
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static byte[] hmac(SecretKeySpec key, byte[]... parts) {
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(key);
            for (byte[] part : parts) {
                mac.update(part);
            }
            return mac.doFinal();
        } catch (GeneralSecurityException impossible) { // every Java has HmacSHA256
            throw new IllegalStateException(impossible);
        }
    }
}
// docs:end verify

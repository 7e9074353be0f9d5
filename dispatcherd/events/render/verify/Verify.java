import static java.nio.charset.StandardCharsets.UTF_8;

import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Instant;
import java.util.Base64;
import java.util.Map;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

final class Verify {
  /** Names of headers in lower case; body: the bytes as they came, not JSON written again. */
  static boolean verify(String secret, Map<String, String> headers, byte[] body)
      throws GeneralSecurityException {
    String id = headers.get("webhook-id"), sent = headers.get("webhook-timestamp");
    if (Math.abs(Instant.now().getEpochSecond() - Long.parseLong(sent)) > 300) {
      return false; // older than five minutes: perhaps overheard and played back
    }
    byte[] key = Base64.getDecoder().decode(secret.replaceFirst("^whsec_", ""));
    Mac mac = Mac.getInstance("HmacSHA256");
    mac.init(new SecretKeySpec(key, "HmacSHA256"));
    mac.update((id + "." + sent + ".").getBytes(UTF_8));
    byte[] right = ("v1," + Base64.getEncoder().encodeToString(mac.doFinal(body))).getBytes(UTF_8);
    for (String one : headers.get("webhook-signature").split(" ")) {
      if (MessageDigest.isEqual(right, one.getBytes(UTF_8))) {
        return true;
      }
    }
    return false;
  }
}

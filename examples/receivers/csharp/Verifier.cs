// docs:start verify
using System;
using System.Collections.Generic;
using System.Globalization;
using System.Linq;
using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;

/// <summary>Not verified. The message is for your log; tell the sender nothing but 401.</summary>
public sealed class RefusedException : Exception
{
    public RefusedException(string message) : base(message) { }
}

/// <summary>Verifies signatures of Standard Webhooks.</summary>
public sealed class Verifier
{
    private static readonly TimeSpan Tolerance = TimeSpan.FromMinutes(5);
    private readonly IReadOnlyList<byte[]> keys;

    /// <summary>Secrets are separated by spaces: there are two of them while you rotate.</summary>
    public Verifier(string secrets)
    {
        keys = secrets.Split(new[] { ' ' }, StringSplitOptions.RemoveEmptyEntries).Select(Key).ToList();
        if (keys.Count == 0) throw new FormatException("no secret");
    }

    private static byte[] Key(string secret)
    {
        if (!secret.StartsWith("whsec_", StringComparison.Ordinal))
            throw new FormatException("a secret is whsec_ and base64");
        return Convert.FromBase64String(secret.Substring("whsec_".Length));
    }

    /// <summary>
    /// The id of a request that the holder of a key has sent, just now. <paramref name="header"/> gives
    /// the value of a header or null; <paramref name="body"/> is the raw bytes as they arrived: JSON
    /// that was parsed and written anew has another signature.
    /// </summary>
    /// <exception cref="RefusedException">It is not.</exception>
    public string Verify(Func<string, string> header, byte[] body, DateTimeOffset now)
    {
        string id = header("webhook-id");
        string timestamp = header("webhook-timestamp");
        string signatures = header("webhook-signature");
        if (string.IsNullOrEmpty(id) || string.IsNullOrEmpty(timestamp) || string.IsNullOrEmpty(signatures))
            throw new RefusedException("missing header");
        if (!Regex.IsMatch(timestamp, @"\A[0-9]{1,11}\z"))
            throw new RefusedException("malformed timestamp");
        long seconds = long.Parse(timestamp, CultureInfo.InvariantCulture);
        if (Math.Abs(now.ToUnixTimeSeconds() - seconds) > Tolerance.TotalSeconds)
            throw new RefusedException("timestamp too far from now");
        byte[] signed = Encoding.UTF8.GetBytes(id + "." + timestamp + ".").Concat(body).ToArray();
        foreach (byte[] key in keys)
        {
            byte[] expected;
            using (var hmac = new HMACSHA256(key))
                expected = Encoding.ASCII.GetBytes("v1," + Convert.ToBase64String(hmac.ComputeHash(signed)));
            foreach (string given in signatures.Split(' '))
            {
                // Takes as long for a wrong signature as for one that is nearly right.
                if (CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(given), expected))
                    return id;
            }
        }
        throw new RefusedException("no matching signature");
    }
}
// docs:end verify

package apogee.interop;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Random;

/** Bodies that can be made again from a message's key and the body's length. */
final class Payload {
    static final int BYTES_MIN = 100;
    static final int BYTES_MAX = 1100;

    private Payload() {}

    /** Of a length that depends on the key. */
    static byte[] of(String key) {
        return of(key, BYTES_MIN + Math.floorMod(key.hashCode(), BYTES_MAX - BYTES_MIN));
    }

    /** The key, a line feed, and noise that does not compress. */
    static byte[] of(String key, int length) {
        byte[] head = (key + '\n').getBytes(StandardCharsets.UTF_8);
        byte[] body = new byte[Math.max(length, head.length)];
        new Random(key.hashCode()).nextBytes(body);
        System.arraycopy(head, 0, body, 0, head.length);
        return body;
    }

    static boolean isIntact(String key, byte[] body) {
        return Arrays.equals(body, of(key, body.length));
    }
}

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.logging.Logger;

/** Receives webhooks signed by Standard Webhooks. Java 17 or newer, the JDK only. */
public final class Main {
    private static final Logger LOG = Logger.getLogger("webhooks");
    private static final int MAX_BODY_BYTES = 2 * 1024 * 1024;
    private static final int THREADS = 16;

    private final Verifier verifier;
    private final Inbox inbox = new Inbox(Main::handle);

    private Main(Verifier verifier) {
        this.verifier = verifier;
    }

    /** Your work goes here. */
    private static void handle(Inbox.Event event) {
        LOG.info("processed " + event.id());
    }

    private void receive(HttpExchange exchange) throws IOException {
        if (!exchange.getRequestMethod().equals("POST")) {
            answer(exchange, 405, "POST only");
            return;
        }
        byte[] body = body(exchange);
        if (body == null) {
            answer(exchange, 413, "body too large");
            return;
        }
        String id;
        try {
            id = verifier.verify(exchange.getRequestHeaders()::getFirst, body, Instant.now());
        } catch (Verifier.Refused refused) {
            LOG.warning("refused: " + refused.getMessage());
            answer(exchange, 401, "invalid signature");
            return;
        }
        List<Inbox.Event> events;
        try {
            events = events(id, Json.read(body));
        } catch (IllegalArgumentException error) {
            answer(exchange, 400, "not a JSON event, nor an array of events with ids");
            return;
        }
        for (Inbox.Event event : events) {
            if (!inbox.take(event)) {
                exchange.getResponseHeaders().set("Retry-After", "5");
                answer(exchange, 503, "busy");
                return;
            }
        }
        answer(exchange, 202, "");
    }

    /** The raw body; null when it is larger than allowed. */
    private static byte[] body(HttpExchange exchange) throws IOException {
        String length = exchange.getRequestHeaders().getFirst("Content-Length");
        if (length != null && Long.parseLong(length) > MAX_BODY_BYTES) { // the server has checked it
            return null;
        }
        byte[] body = exchange.getRequestBody().readNBytes(MAX_BODY_BYTES + 1);
        return body.length > MAX_BODY_BYTES ? null : body;
    }

    /** What a verified body holds: one event with the message's id, or a batch with theirs. */
    private static List<Inbox.Event> events(String id, Object content) {
        if (!(content instanceof List<?> members)) {
            return List.of(new Inbox.Event(id, content));
        }
        List<Inbox.Event> events = new ArrayList<>();
        for (Object member : members) {
            if (!(member instanceof Map<?, ?> map && map.get("id") instanceof String memberId)) {
                throw new IllegalArgumentException("a member without an id");
            }
            events.add(new Inbox.Event(memberId, member));
        }
        return events;
    }

    private void processed(HttpExchange exchange) throws IOException {
        // Ids from dispatcherd hold neither quotes nor backslashes.
        List<String> quoted = inbox.processed().stream().map(id -> '"' + id + '"').toList();
        answer(exchange, 200, "{\"processed\": " + quoted + "}");
    }

    private static void answer(HttpExchange exchange, int status, String text) throws IOException {
        try (exchange) {
            byte[] content = text.getBytes(StandardCharsets.UTF_8);
            exchange.sendResponseHeaders(status, content.length == 0 ? -1 : content.length);
            exchange.getResponseBody().write(content);
        }
    }

    public static void main(String[] arguments) throws IOException {
        // Seconds for a request to arrive; without these a slow sender would hold a thread for ever.
        System.setProperty("sun.net.httpserver.maxReqTime", "10");
        System.setProperty("sun.net.httpserver.maxRspTime", "10");
        Verifier verifier;
        try {
            verifier = new Verifier(System.getenv().getOrDefault("WEBHOOK_SECRET", ""));
        } catch (IllegalArgumentException error) {
            System.err.println("WEBHOOK_SECRET: " + error.getMessage() + ", as the sender gave it to you");
            System.exit(1);
            return;
        }
        Main app = new Main(verifier);
        Thread worker = new Thread(app.inbox::work, "worker");
        worker.setDaemon(true);
        worker.start();

        int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "8000"));
        HttpServer server =
            HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 0);
        server.setExecutor(Executors.newFixedThreadPool(THREADS));
        server.createContext("/webhooks", app::receive);
        server.createContext("/processed", app::processed);
        server.createContext("/healthz", exchange -> answer(exchange, 200, "ok"));
        server.start();
        LOG.info("listening on " + server.getAddress());
    }
}

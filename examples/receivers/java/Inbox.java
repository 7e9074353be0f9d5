import java.util.ArrayDeque;
import java.util.Collections;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.logging.Level;
import java.util.logging.Logger;

/** Takes each event once and has it handled in the background, in the order of arrival. */
final class Inbox {
    private static final Logger LOG = Logger.getLogger("webhooks");
    private static final int MAX_IDS = 10_000;
    private static final int MAX_WAITING = 1_000;

    record Event(String id, Object content) {}

    interface Handler {
        void handle(Event event) throws Exception;
    }

    private final Set<String> seen = Collections.newSetFromMap(new LinkedHashMap<>() {
        @Override
        protected boolean removeEldestEntry(Map.Entry<String, Boolean> eldest) {
            return size() > MAX_IDS;
        }
    });
    private final BlockingQueue<Event> waiting = new ArrayBlockingQueue<>(MAX_WAITING);
    private final Deque<String> processed = new ArrayDeque<>();
    private final Handler handler;

    Inbox(Handler handler) {
        this.handler = handler;
    }

    /** False when there is no room: the sender must come again. */
    synchronized boolean take(Event event) {
        if (seen.contains(event.id())) {
            LOG.info("repeated " + event.id());
            return true;
        }
        return waiting.offer(event) && seen.add(event.id());
    }

    /** Handles what was taken, one after the other, until the thread is interrupted. */
    void work() {
        try {
            while (true) {
                Event event = waiting.take();
                try {
                    handler.handle(event);
                } catch (Exception error) {
                    LOG.log(Level.SEVERE, "failed " + event.id(), error);
                }
                done(event.id());
            }
        } catch (InterruptedException end) {
            Thread.currentThread().interrupt();
        }
    }

    private synchronized void done(String id) {
        processed.addLast(id);
        if (processed.size() > MAX_IDS) {
            processed.removeFirst();
        }
    }

    synchronized List<String> processed() {
        return List.copyOf(processed);
    }
}

package apogee.twin;

import java.io.ByteArrayOutputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

/**
 * What a program prints, apart from what others print meanwhile: output of the thread that runs it and of the threads
 * that it starts goes to a buffer, all other output to where it went before.
 */
final class Capture {
    private static final InheritableThreadLocal<Buffer> BUFFER = new InheritableThreadLocal<>();

    private Capture() {
    }

    static void install() {
        System.setOut(new PrintStream(new Split(System.err), true));
        System.setErr(new PrintStream(new Split(System.err), true));
    }

    interface Program {
        void run() throws Exception;
    }

    /** What the program prints. One that is not at its end in time is interrupted. */
    static String of(long limitMillis, Program program) throws InterruptedException {
        Running running = start(program);
        running.thread.join(limitMillis);
        String printed = running.printed();
        running.end();
        return printed;
    }

    /** Starts the program in a thread of its own. */
    static Running start(Program program) {
        Buffer buffer = new Buffer();
        Thread thread = new Thread(() -> {
            BUFFER.set(buffer);
            try {
                program.run();
            } catch (Throwable e) {
                e.printStackTrace();
            }
        });
        thread.setDaemon(true);
        thread.start();
        return new Running(thread, buffer);
    }

    record Running(Thread thread, Buffer buffer) {
        private static final long LOOK_MILLIS = 50;

        /** Until the text has been printed so often, or the time is over. */
        void await(String text, int times, long limitMillis) throws InterruptedException {
            long deadline = System.currentTimeMillis() + limitMillis;
            while (System.currentTimeMillis() < deadline && count(text) < times) {
                Thread.sleep(LOOK_MILLIS);
            }
        }

        private int count(String text) {
            String printed = printed();
            int count = 0;
            for (int at = printed.indexOf(text); at >= 0; at = printed.indexOf(text, at + text.length())) {
                count++;
            }
            return count;
        }

        String printed() {
            synchronized (buffer) {
                return buffer.toString(StandardCharsets.UTF_8);
            }
        }

        /** Interrupts the program's thread, and any other of its threads at the next thing that it prints. */
        void end() {
            synchronized (buffer) {
                buffer.isEnded = true;
            }
            thread.interrupt();
        }
    }

    static final class Buffer extends ByteArrayOutputStream {
        private boolean isEnded;
    }

    private static final class Split extends OutputStream {
        private final OutputStream elsewhere;

        Split(OutputStream elsewhere) {
            this.elsewhere = elsewhere;
        }

        @Override
        public void write(int b) throws java.io.IOException {
            write(new byte[] {(byte) b}, 0, 1);
        }

        @Override
        public void write(byte[] bytes, int from, int length) throws java.io.IOException {
            Buffer buffer = BUFFER.get();
            if (buffer == null) {
                elsewhere.write(bytes, from, length);
                return;
            }
            synchronized (buffer) {
                if (buffer.isEnded) {
                    // No exception: there are programs that print every one and go on.
                    throw new Error("printed after the end");
                }
                buffer.write(bytes, from, length);
            }
        }
    }
}

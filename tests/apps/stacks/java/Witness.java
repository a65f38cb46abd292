import java.io.InputStream;
import java.io.OutputStream;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.function.Supplier;

/**
 * Threads that wait for an answer, each below calls of another kind, and what the VM says of their stacks.
 * Arguments: how often each asks before, so that the compilers take on what they want to.
 *
 * Prints a line for each thread, `thread NAME FRAME|FRAME|...`, innermost first, and then `ready`.
 */
public final class Witness {
    static final byte NOW = 'n';
    static final byte NEVER = 'x';

    interface Work {
        int run(Connection connection, byte when) throws Exception;
    }

    /** A connection to a peer that answers at once or never. */
    static final class Connection {
        final InputStream in;
        final OutputStream out;

        Connection(int port) throws Exception {
            Socket socket = new Socket(InetAddress.getLoopbackAddress(), port);
            socket.setTcpNoDelay(true);
            in = socket.getInputStream();
            out = socket.getOutputStream();
        }

        int ask(byte when) throws Exception {
            out.write(when);
            return in.read();
        }
    }

    static void peer(ServerSocket server) {
        try {
            while (true) {
                Socket socket = server.accept();
                socket.setTcpNoDelay(true);
                Thread answering = new Thread(() -> answer(socket), "peer");
                answering.setDaemon(true);
                answering.start();
            }
        } catch (Exception e) {
            System.err.println(e);
        }
    }

    static void answer(Socket socket) {
        try {
            InputStream in = socket.getInputStream();
            OutputStream out = socket.getOutputStream();
            for (int asked = in.read(); asked >= 0; asked = in.read()) {
                if (asked == NOW) {
                    out.write(1);
                }
            }
        } catch (Exception e) {
            System.err.println(e);
        }
    }

    // --- Calls that a compiler puts into one another.
    static int outer(Connection c, byte when) throws Exception {
        int sum = 1;
        sum += middle(c, when) + 1;
        return sum;
    }

    static int middle(Connection c, byte when) throws Exception {
        return 2
            + inner(c, when);
    }

    static int inner(Connection c, byte when) throws Exception {
        int answer =
            c.ask(when);
        return answer * 3;
    }

    // --- A loop that is compiled while it runs.
    static int loop(Connection c, byte when) throws Exception {
        long sum = 0;
        for (int i = 0; i < 200_000; i++) {
            sum += i ^ (sum << 1);
            if (i == 199_990) {
                sum += c.ask(when);
            }
        }
        return (int) sum;
    }

    // --- Lambdas, and method references.
    static int lambda(Connection c, byte when) throws Exception {
        Supplier<Integer> supplier = () -> {
            try {
                return c.ask(when);
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
        };
        Function<Supplier<Integer>, Integer> get = Supplier::get;
        List<Integer> one = Arrays.asList(1);
        return one.stream().map(n -> n + get.apply(supplier)).reduce(0, Integer::sum);
    }

    // --- Reflection, and proxies.
    public static int reflected(Connection c, byte when) throws Exception {
        return c.ask(when);
    }

    static final Method REFLECTED = find();

    static Method find() {
        try {
            return Witness.class.getMethod("reflected", Connection.class, byte.class);
        } catch (NoSuchMethodException e) {
            throw new IllegalStateException(e);
        }
    }

    static int reflection(Connection c, byte when) throws Exception {
        InvocationHandler handler = (proxy, method, arguments) -> REFLECTED.invoke(null, arguments);
        Work proxy = (Work) Proxy.newProxyInstance(Witness.class.getClassLoader(), new Class<?>[] {Work.class}, handler);
        return proxy.run(c, when);
    }

    // --- A class that is initialized by its first use: Java, C++, Java.
    static Connection initializing;

    static final class First {
        static int answer;

        static {
            try {
                answer = initializing.ask(NEVER);
            } catch (Exception e) {
                answer = -1;
            }
        }
    }

    static int initializer(Connection c, byte when) throws Exception {
        if (when == NEVER) {
            initializing = c;
            return First.answer;
        }
        return c.ask(when);
    }

    // --- Calls that go deep, with as many arguments as registers do not hold.
    static long deep(Connection c, byte when, int depth, long a, long b, long d, long e, double f, long g, long h, Object o)
            throws Exception {
        if (depth == 0) {
            return c.ask(when);
        }
        return a + deep(c, when, depth - 1, b, a, d, e, f, h, g, o) + h;
    }

    static int recursion(Connection c, byte when) throws Exception {
        return (int) deep(c, when, 12, 1, 2, 3, 4, 5.0, 6, 7, c);
    }

    // --- Compiled for the only subclass, until there is another one.
    abstract static class Base {
        abstract int step(Connection c, byte when) throws Exception;

        final synchronized int run(Connection c, byte when) throws Exception {
            return step(c, when) + 1;
        }
    }

    static final class One extends Base {
        @Override
        int step(Connection c, byte when) throws Exception {
            return c.ask(when) + 1;
        }
    }

    static final class Two extends Base {
        @Override
        int step(Connection c, byte when) {
            return 2;
        }
    }

    static volatile Base base = new One();
    static volatile Base other;

    static int assumption(Connection c, byte when) throws Exception {
        return base.run(c, when);
    }

    // --- A handler of exceptions, and a `finally`.
    static int handler(Connection c, byte when) throws Exception {
        try {
            throw new IllegalStateException("expected");
        } catch (IllegalStateException e) {
            return c.ask(when);
        } finally {
            c.out.flush();
        }
    }

    static Thread start(String name, int port, int rounds, Work work) {
        Thread thread = new Thread(() -> {
            try {
                Connection connection = new Connection(port);
                // What was never done before is not compiled, so the last round does what all do.
                byte[] when = new byte[rounds + 1];
                Arrays.fill(when, NOW);
                when[rounds] = NEVER;
                int[] last = new int[rounds + 1];
                last[rounds] = 1;
                for (int round = 0; round <= rounds; round++) {
                    WAITING.addAndGet(last[round]);
                    work.run(connection, when[round]);
                }
            } catch (Exception e) {
                e.printStackTrace();
            }
        }, name);
        thread.setDaemon(true);
        thread.start();
        return thread;
    }

    /** How many threads are in their last round. */
    static final AtomicInteger WAITING = new AtomicInteger();

    public static void main(String[] arguments) throws Exception {
        int rounds = Integer.parseInt(arguments[0]);
        ServerSocket server = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        Thread peer = new Thread(() -> peer(server), "peer");
        peer.setDaemon(true);
        peer.start();
        int port = server.getLocalPort();
        Thread[] threads = {
            start("t-inlined", port, rounds, Witness::outer),
            start("t-loop", port, Math.min(rounds, 40), Witness::loop),
            start("t-lambda", port, rounds, Witness::lambda),
            start("t-reflection", port, rounds, Witness::reflection),
            start("t-initializer", port, rounds, Witness::initializer),
            start("t-recursion", port, rounds, Witness::recursion),
            start("t-assumption", port, rounds, Witness::assumption),
            start("t-handler", port, rounds, Witness::handler),
        };
        while (WAITING.get() < threads.length) {
            Thread.sleep(100);
        }
        // Until all of them wait, and nothing is compiled any more.
        Thread.sleep(500);
        other = (Base) Class.forName("Witness$Two").getDeclaredConstructor().newInstance();
        System.gc();
        Thread.sleep(200);
        for (Thread thread : threads) {
            StringBuilder line = new StringBuilder("thread " + thread.getName() + " ");
            for (StackTraceElement frame : thread.getStackTrace()) {
                line.append(frame.getClassName()).append('.').append(frame.getMethodName()).append(':')
                    .append(Math.max(frame.getLineNumber(), 0)).append('|');
            }
            System.out.println(line);
        }
        System.out.println("ready");
        System.out.flush();
        Thread.sleep(3_600_000);
    }
}

// A pool of two connections, by HikariCP: one command a line on stdin, one answer a line.

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.SQLException;
import java.util.concurrent.CountDownLatch;

public class Waiting {
    static HikariDataSource pool;

    interface Work {
        void run(CountDownLatch done) throws Exception;
    }

    /** Forgets to return its connection. */
    static void lose(CountDownLatch done) throws SQLException {
        pool.getConnection().createStatement().execute("SELECT 1");
        done.countDown();
    }

    /** Keeps its connection while something else takes long. */
    static void hold(CountDownLatch done) throws Exception {
        try (Connection connection = pool.getConnection()) {
            connection.createStatement().execute("SELECT 1");
            done.countDown();
            Thread.sleep(3_600_000);
        }
    }

    /** Waits for a connection. */
    static void checkout(CountDownLatch done) throws SQLException {
        done.countDown();
        pool.getConnection().createStatement().execute("SELECT 1");
    }

    static void start(Work work) throws InterruptedException {
        CountDownLatch done = new CountDownLatch(1);
        Thread thread = new Thread(() -> {
            try {
                work.run(done);
            } catch (Exception error) {
                error.printStackTrace();
            }
        });
        thread.setDaemon(true);
        thread.start();
        done.await();
    }

    public static void main(String[] arguments) throws Exception {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl("jdbc:postgresql://" + arguments[0] + ":" + arguments[1]
                + "/postgres?sslmode=disable&gssEncMode=disable");
        config.setUsername(arguments[2]);
        config.setMaximumPoolSize(2);
        config.setConnectionTimeout(600_000);
        pool = new HikariDataSource(config);
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        for (String command; (command = commands.readLine()) != null;) {
            switch (command) {
                case "lose" -> start(Waiting::lose);
                case "hold" -> start(Waiting::hold);
                case "wait" -> start(Waiting::checkout);
                default -> { }
            }
            int waiting = pool.getHikariPoolMXBean().getThreadsAwaitingConnection();
            System.out.println("ok waiting=" + waiting);
            System.out.flush();
        }
    }
}

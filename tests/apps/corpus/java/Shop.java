import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.Socket;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.HashMap;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import org.postgresql.PGConnection;

/** A shop's back office by JDBC and HikariCP. Argument: the pattern; it begins at a line on stdin, a leak ends at another. */
public final class Shop {
    /** Something that a handler does. */
    interface Work {
        void run() throws Exception;
    }

    static final int EVERY = setting("CORPUS_EVERY");
    /** Whether the program has been told to lose no more connections. */
    static volatile boolean enough;
    static final Random RANDOM = new Random();
    static final List<Object> LOST = new ArrayList<>();
    static HikariDataSource pool;
    static int calls;

    static int setting(String name) {
        return Integer.parseInt(System.getenv(name));
    }

    static String url(int port) {
        return "jdbc:postgresql://127.0.0.1:" + port + "/postgres?user=postgres&sslmode="
            + System.getenv("PGSSLMODE") + "&ApplicationName=" + System.getenv("PGAPPNAME");
    }

    static HikariDataSource open(int most, int spare, int lifetime) {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(url(setting("PGPORT")));
        config.setMaximumPoolSize(most);
        config.setMinimumIdle(spare);
        config.setConnectionTimeout(5000);
        if (lifetime > 0) {
            config.setMaxLifetime(lifetime);
        }
        return new HikariDataSource(config);
    }

    static void sleep(int milliseconds) {
        try {
            Thread.sleep((long) (milliseconds * (0.67 + 0.66 * RANDOM.nextDouble())));
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    static void leaked(int port) {
        System.out.println("leak " + System.currentTimeMillis() + " " + port);
        System.out.flush();
    }

    static void inBackground(Work work) {
        Thread thread = new Thread(() -> attempt(work));
        thread.setDaemon(true);
        thread.start();
    }

    static void attempt(Work work) {
        try {
            work.run();
        } catch (Exception e) {
            System.err.println(e);
        }
    }

    static void every(int milliseconds, Work work) {
        while (true) {
            attempt(work);
            sleep(milliseconds);
        }
    }

    /** Asks for the connection's port. Handlers ask by themselves: the stack of a request ends in the one that made it. */
    static final String PORT = "select inet_client_port(), count(*) from orders";

    /** The first column of the first row. */
    static int first(ResultSet rows) throws SQLException {
        try (rows) {
            rows.next();
            return rows.getInt(1);
        }
    }

    static void serve() throws SQLException {
        if (RANDOM.nextInt(3) == 0) {
            placeOrder();
        } else {
            listOrders();
        }
    }

    static void listOrders() throws SQLException {
        try (Connection connection = pool.getConnection()) {
            first(connection.createStatement().executeQuery("select id, customer from orders order by id desc limit 20"));
        }
    }

    static void placeOrder() throws SQLException {
        try (Connection connection = pool.getConnection(); Statement statement = connection.createStatement()) {
            connection.setAutoCommit(false);
            statement.executeUpdate("insert into orders (customer, cents) values ('customer-7', 100)");
            connection.commit();
        }
    }

    static void exportInvoices() throws SQLException {
        Connection connection = pool.getConnection();
        LOST.add(connection);
        connection.setAutoCommit(false);
        Statement statement = connection.createStatement();
        statement.setFetchSize(10);
        ResultSet rows = statement.executeQuery("select inet_client_port(), note from orders");
        rows.next();
        LOST.add(rows);
        leaked(rows.getInt(1));
    }

    static void reserveStock() throws SQLException {
        Connection connection = pool.getConnection();
        LOST.add(connection);
        connection.setAutoCommit(false);
        int port = first(connection.createStatement().executeQuery(PORT));
        if (first(connection.createStatement().executeQuery("select 0")) == 0) {
            leaked(port);
            return;
        }
        connection.commit();
        connection.close();
    }

    static void applyCoupon() throws SQLException {
        Connection connection = pool.getConnection();
        LOST.add(connection);
        connection.setAutoCommit(false);
        int port = first(connection.createStatement().executeQuery(PORT));
        try {
            first(connection.createStatement().executeQuery("select cents / 0 from orders"));
        } catch (SQLException e) {
            leaked(port);
            throw e;
        }
        connection.commit();
        connection.close();
    }

    static void customerReport() throws SQLException {
        Connection connection = pool.getConnection();
        LOST.add(connection);
        leaked(first(connection.createStatement().executeQuery(PORT)));
    }

    static void importOrder() throws SQLException {
        Connection connection = pool.getConnection();
        int port = first(connection.createStatement().executeQuery(PORT));
        if (++calls % 3 == 0) {
            LOST.add(connection);
            leaked(port);
            throw new SQLException("order without a customer");
        }
        connection.close();
    }

    static void syncPrices() throws SQLException {
        for (int number = 1; number <= 1000; number++) {
            Connection connection = pool.getConnection();
            int port = first(connection.createStatement().executeQuery("select inet_client_port()"));
            if (number == 1000) {
                LOST.add(connection);
                leaked(port);
            } else {
                connection.close();
            }
        }
    }

    static void monthlyStatement() throws SQLException {
        HikariDataSource own = open(1, 1, 0);
        LOST.add(own);
        try (Connection connection = own.getConnection()) {
            leaked(first(connection.createStatement().executeQuery(PORT)));
        }
    }

    static void syncInventory() throws SQLException {
        Connection connection = DriverManager.getConnection(url(setting("PGPORT")));
        LOST.add(connection);
        leaked(first(connection.createStatement().executeQuery(PORT)));
    }

    static void browseCatalogue() throws SQLException {
        Connection connection = pool.getConnection();
        LOST.add(connection);
        connection.setAutoCommit(false);
        Statement statement = connection.createStatement();
        statement.execute("declare page cursor for select inet_client_port() from orders");
        leaked(first(connection.createStatement().executeQuery("fetch 1 from page")));
    }

    static void bulkImport() throws Exception {
        Connection connection = pool.getConnection();
        LOST.add(connection);
        int port = first(connection.createStatement().executeQuery(PORT));
        var copy = connection.unwrap(PGConnection.class).getCopyAPI().copyIn("copy imported from stdin");
        byte[] row = "a customer with a long name\t100\n".getBytes();
        for (int i = 0; i < 1000; i++) {
            copy.writeToCopy(row, 0, row.length);
        }
        copy.flushCopy();
        LOST.add(copy);
        leaked(port);
    }

    /** Holds its connection while it waits for a printer that never counts down. */
    static void sendReceipts() throws Exception {
        try (Connection connection = pool.getConnection()) {
            leaked(first(connection.createStatement().executeQuery(PORT)));
            new CountDownLatch(1).await();
        }
    }

    /** Holds its connection while it waits for somebody who never answers. */
    static void chargeCard() throws Exception {
        try (Connection connection = pool.getConnection();
                Socket provider = new Socket("127.0.0.1", setting("CORPUS_HOLE"))) {
            leaked(first(connection.createStatement().executeQuery(PORT)));
            provider.getInputStream().read();
        }
    }

    static void queryWarehouse() throws SQLException {
        leaked(0);
        DriverManager.getConnection(url(setting("CORPUS_HOLE"))).close();
    }

    static void burst(int size) throws SQLException {
        List<Connection> held = new ArrayList<>();
        try {
            for (int i = 0; i < size; i++) {
                held.add(pool.getConnection());
                first(held.get(i).createStatement().executeQuery(PORT));
            }
        } finally {
            for (Connection connection : held) {
                connection.close();
            }
        }
    }

    static void perRequest() throws SQLException {
        try (Connection connection = DriverManager.getConnection(url(setting("PGPORT")))) {
            first(connection.createStatement().executeQuery(PORT));
        }
    }

    static void listenForOrders() throws Exception {
        Connection connection = DriverManager.getConnection(url(setting("PGPORT")));
        connection.createStatement().execute("listen orders");
        while (true) {
            connection.unwrap(PGConnection.class).getNotifications(60000);
        }
    }

    static void longReport() throws SQLException {
        try (Connection connection = pool.getConnection(); Statement statement = connection.createStatement()) {
            statement.execute("select pg_sleep(9 + 5 * random())");
        }
    }

    static void slowCursor() throws SQLException {
        try (Connection connection = pool.getConnection(); Statement statement = connection.createStatement()) {
            connection.setAutoCommit(false);
            statement.setFetchSize(20);
            try (ResultSet rows = statement.executeQuery("select id from orders")) {
                for (int row = 0; row < 200 && rows.next(); row++) {
                    if (row % 20 == 0) {
                        sleep(1500);
                    }
                }
            }
            connection.commit();
        }
    }

    static void cancelled() throws SQLException {
        try (Connection connection = pool.getConnection(); Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            statement.execute("select pg_sleep(30)");
        } catch (SQLException e) {
            if (!"57014".equals(e.getSQLState())) {
                throw e;
            }
        }
    }

    static void twoPools() throws SQLException {
        HikariDataSource other = open(8, 8, 0);
        LOST.add(other);
        for (int size = 0;; size++) {
            burst(2 + size % 15);
            sleep(EVERY);
        }
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, Work> leaks = new HashMap<>();
        leaks.put("rows", Shop::exportInvoices);
        leaks.put("transaction", Shop::reserveStock);
        leaks.put("failed_transaction", Shop::applyCoupon);
        leaks.put("not_returned", Shop::customerReport);
        leaks.put("error_path", Shop::importOrder);
        leaks.put("rare", Shop::syncPrices);
        leaks.put("pool_per_request", Shop::monthlyStatement);
        leaks.put("connection_per_request", Shop::syncInventory);
        leaks.put("cursor", Shop::browseCatalogue);
        leaks.put("copy_open", Shop::bulkImport);
        leaks.put("lost_task", () -> inBackground(Shop::sendReceipts));
        leaks.put("stuck", () -> inBackground(Shop::chargeCard));
        leaks.put("connect_hang", () -> inBackground(Shop::queryWarehouse));
        Map<String, Work> behaviours = new HashMap<>();
        behaviours.put("steady", () -> { });
        behaviours.put("warm_up", () -> { });
        behaviours.put("rotation", () -> every(EVERY, () -> burst(1 + RANDOM.nextInt(8))));
        behaviours.put("min_idle", () -> every(4 * EVERY, () -> burst(12)));
        behaviours.put("idle", () -> burst(9));
        behaviours.put("bursty", () -> every(2 * EVERY, () -> burst(1 + RANDOM.nextInt(25))));
        behaviours.put("per_request", () -> every(EVERY / 3, Shop::perRequest));
        behaviours.put("listen", Shop::listenForOrders);
        behaviours.put("long_report", () -> every(EVERY, Shop::longReport));
        behaviours.put("slow_cursor", () -> every(EVERY, Shop::slowCursor));
        behaviours.put("cancelled", () -> every(EVERY / 2, Shop::cancelled));
        behaviours.put("two_pools", Shop::twoPools);

        String pattern = arguments[0];
        Work leak = leaks.get(pattern);
        Work behave = behaviours.get(pattern);
        if (leak == null && behave == null) {
            throw new IllegalArgumentException("unknown pattern " + pattern);
        }
        int spare = pattern.equals("warm_up") ? 50 : pattern.equals("min_idle") ? 10 : 3;
        pool = open(setting("CORPUS_POOL"), Math.min(spare, setting("CORPUS_POOL")), 0);
        if (pattern.equals("rotation")) {
            pool.getHikariConfigMXBean().setMaxLifetime(30000);
        }
        if (!pattern.equals("idle")) {
            inBackground(() -> every(setting("CORPUS_LOAD"), Shop::serve));
            inBackground(() -> every(setting("CORPUS_LOAD"), Shop::serve));
        }
        System.out.println("ready");
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        commands.readLine();
        inBackground(leak == null ? behave : () -> every(EVERY, () -> {
            if (!enough) {
                leak.run();
            }
        }));
        while (commands.readLine() != null) {
            enough = true;
        }
        System.exit(0);
    }
}

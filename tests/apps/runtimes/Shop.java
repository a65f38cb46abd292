// An order service like shop.c, by HikariCP and PostgreSQL's JDBC driver: one command a line on stdin,
// one answer a line. `// LEAK name` marks the line that makes a handler's last request; tests look it up.

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Collectors;

public class Shop {
    static HikariDataSource pool;
    static final List<Connection> forgotten = new ArrayList<>();
    static int handled;
    /** What Java said of the calls that led to the latest transaction. */
    static String told;

    /** Healthy: returns its connection. */
    static void listOrders() throws SQLException {
        try (Connection connection = pool.getConnection();
                Statement statement = connection.createStatement()) {
            statement.execute("SELECT generate_series(1, 10)");
        }
    }

    /** Forgets to return its connection. */
    static void showInvoice() throws SQLException {
        Connection connection = pool.getConnection();
        forgotten.add(connection);
        Statement statement = connection.createStatement();
        statement.execute("SELECT 'invoice'"); // LEAK return
    }

    /** Forgets to end its transaction. */
    static void refundOrder() throws SQLException {
        Connection connection = pool.getConnection();
        forgotten.add(connection);
        connection.setAutoCommit(false);
        Statement statement = connection.createStatement();
        tell(); statement.execute("SELECT 'refund'"); // LEAK transaction
    }

    /** Keeps what Java itself says of the calls that lead to its caller, innermost first. */
    static void tell() {
        StackTraceElement[] calls = Thread.currentThread().getStackTrace();
        told = Arrays.stream(calls).skip(2)
            .map(call -> call.getClassName() + "." + call.getMethodName() + ":" + Math.max(call.getLineNumber(), 0))
            .collect(Collectors.joining("|"));
    }

    /** Asks as often as it takes the compiler to take it on, on a connection of its own. */
    static void warmUp(int count) throws SQLException {
        for (int i = 0; i < count; i++) {
            handle("return");
            forgotten.remove(forgotten.size() - 1).close();
        }
    }

    static void handle(String command) throws SQLException {
        switch (command) {
            case "serve" -> listOrders();
            case "return" -> showInvoice();
            case "transaction" -> refundOrder();
            default -> throw new SQLException("unknown command");
        }
    }

    public static void main(String[] arguments) throws Exception {
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl("jdbc:postgresql://" + arguments[0] + ":" + arguments[1]
                + "/postgres?sslmode=disable&gssEncMode=disable");
        config.setUsername(arguments[2]);
        config.setMaximumPoolSize(40);
        config.setMinimumIdle(1);
        pool = new HikariDataSource(config);
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            String[] words = line.trim().split(" ");
            int count = words.length > 1 ? Integer.parseInt(words[1]) : 1;
            try {
                if (words[0].equals("warm")) {
                    warmUp(count);
                } else {
                    for (int i = 0; i < count; i++) handle(words[0]);
                }
                System.out.println(told == null ? "ok" : "ok stack=" + told);
            } catch (SQLException error) {
                System.out.println("failed " + error.getMessage().replaceAll("\\s+", " "));
            }
        }
        System.exit(0);
    }
}

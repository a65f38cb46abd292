<?php
// An order service like shop.c, by PDO or PHP's pgsql: one command a line on stdin, one answer a line.

[, $driver, $host, $port, $user] = $argv;
$pool = [];
$forgotten = [];
$witness = '';

/** The calls from its caller outward: name and line, as PHP tells them. */
function calls(): string
{
    $trace = debug_backtrace(DEBUG_BACKTRACE_IGNORE_ARGS);
    $told = [];
    // PHP tells of each call where its caller stood, and nothing of its own functions.
    for ($i = 0; $i < count($trace); $i++) {
        $caller = $trace[$i + 1] ?? ['function' => '{main}'];
        $class = isset($caller['class']) ? $caller['class'] . '::' : '';
        $told[] = $class . $caller['function'] . ':' . ($trace[$i]['line'] ?? 0);
    }
    return implode('|', $told);
}

function pool_take()
{
    global $pool, $driver, $host, $port, $user;
    $address = "host=$host port=$port dbname=postgres sslmode=disable gssencmode=disable";
    if ($pool) {
        return array_pop($pool);
    }
    return $driver === 'pdo'
        ? new PDO('pgsql:' . str_replace(' ', ';', $address), $user)
        : pg_connect("$address user=$user", PGSQL_CONNECT_FORCE_NEW);
}

/** Healthy: returns its connection. */
function list_orders(): void
{
    global $pool;
    $connection = pool_take();
    $sql = 'SELECT generate_series(1, 10)';
    $connection instanceof PDO ? $connection->query($sql)->fetchAll() : pg_query($connection, $sql);
    $pool[] = $connection;
}

/** Forgets to return its connection. */
function show_invoice(): void
{
    global $forgotten;
    $forgotten[] = $connection = pool_take();
    $sql = "SELECT 'invoice'";
    $connection instanceof PDO ? $connection->query($sql)->fetchAll() : pg_query($connection, $sql);
}

/** Forgets to end its transaction. */
function refund_order(): void
{
    global $forgotten, $witness;
    $forgotten[] = $connection = pool_take();
    $connection instanceof PDO ? $connection->exec('BEGIN') : pg_query($connection, 'BEGIN');
    // It is told where it stands on the line of the request.
    $sql = "SELECT 'refund'";
    [$witness] = [calls(), $connection instanceof PDO ? $connection->query($sql) : pg_query($connection, $sql)];
}

/** Leads to the same by every kind of call. */
class Desk
{
    public static function open(): void
    {
        $refund = function (): iterable {
            yield from array_map([new self(), 'refund'], ['refund_order']);
        };
        foreach ($refund() as $_) {
        }
    }

    public function refund(string $how): void
    {
        (static function () use ($how) {
            call_user_func($how);
        })();
    }
}

$handlers = ['serve' => 'list_orders', 'return' => 'show_invoice', 'transaction' => 'Desk::open'];
while (($line = fgets(STDIN)) !== false) {
    [$command, $number] = explode(' ', trim($line)) + [1 => '1'];
    try {
        for ($i = 0; $i < (int) $number; $i++) {
            $handlers[$command]();
        }
        echo "ok stack=$witness\n";
    } catch (Throwable $error) {
        echo 'failed ' . preg_replace('/\s+/', ' ', $error->getMessage()) . "\n";
    }
}

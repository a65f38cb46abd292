<?php
// An order service like shop.c, by PDO or PHP's pgsql: one command a line on stdin, one answer a line.

[, $driver, $host, $port, $user] = $argv;
$pool = [];
$forgotten = [];

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

function ask($connection, string $sql): void
{
    if ($connection instanceof PDO) {
        $connection->query($sql)->fetchAll();
    } else {
        pg_query($connection, $sql);
    }
}

/** Healthy: returns its connection. */
function list_orders(): void
{
    global $pool;
    $connection = pool_take();
    ask($connection, 'SELECT generate_series(1, 10)');
    $pool[] = $connection;
}

/** Forgets to return its connection. */
function show_invoice(): void
{
    global $forgotten;
    $forgotten[] = $connection = pool_take();
    ask($connection, "SELECT 'invoice'");
}

/** Forgets to end its transaction. */
function refund_order(): void
{
    global $forgotten;
    $forgotten[] = $connection = pool_take();
    ask($connection, 'BEGIN');
    ask($connection, "SELECT 'refund'");
}

$handlers = ['serve' => 'list_orders', 'return' => 'show_invoice', 'transaction' => 'refund_order'];
while (($line = fgets(STDIN)) !== false) {
    [$command, $number] = explode(' ', trim($line)) + [1 => '1'];
    try {
        for ($i = 0; $i < (int) $number; $i++) {
            $handlers[$command]();
        }
        echo "ok\n";
    } catch (Throwable $error) {
        echo 'failed ' . preg_replace('/\s+/', ' ', $error->getMessage()) . "\n";
    }
}

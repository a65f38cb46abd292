<?php
// A shop's back office by PHP: a master with forked workers, each of which serves by PDO or by the module pgsql.
// Argument: the pattern; it begins at a line on stdin, a leak ends at another.

function setting(string $name): int
{
    return (int) getenv($name);
}

function pause(float $milliseconds): void
{
    usleep((int) ($milliseconds * 1000 * (0.67 + 0.66 * mt_rand() / mt_getrandmax())));
}

function leaked(int $port): void
{
    fwrite(STDOUT, sprintf("leak %d %d\n", (int) (microtime(true) * 1000), $port));
}

const PORT = 'select inet_client_port(), count(*) from orders';

$lost = [];
$spare = [];

function address(?int $port = null): string
{
    return 'host=127.0.0.1 port=' . ($port ?? setting('PGPORT'));
}

function dial(): PDO
{
    $name = ';application_name=' . getenv('PGAPPNAME');
    $where = 'pgsql:host=127.0.0.1;port=' . setting('PGPORT') . ';sslmode=' . getenv('PGSSLMODE') . $name;
    return new PDO($where, getenv('PGUSER'), '', [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
}

function take(): PDO
{
    global $spare;
    return array_pop($spare) ?? dial();
}

function give(PDO $connection): void
{
    global $spare;
    $spare[] = $connection;
}

function list_orders(): void
{
    $connection = take();
    $connection->query('select id, customer from orders order by id desc limit 20')->fetchAll();
    give($connection);
}

function place_order(): void
{
    $connection = take();
    $connection->beginTransaction();
    $connection->exec("insert into orders (customer, cents) values ('customer-7', 100)");
    $connection->commit();
    give($connection);
}

function serve(): void
{
    mt_rand(0, 2) ? list_orders() : place_order();
}

function reserve_stock(): void
{
    global $lost;
    $connection = take();
    $lost[] = $connection;
    $connection->beginTransaction();
    leaked($connection->query(PORT)->fetchColumn());
}

function apply_coupon(): void
{
    global $lost;
    $connection = take();
    $lost[] = $connection;
    $connection->beginTransaction();
    $port = $connection->query(PORT)->fetchColumn();
    try {
        $connection->exec('update orders set cents = cents / 0 where id = 1');
    } catch (PDOException $e) {
        leaked($port);
    }
}

function customer_report(): void
{
    global $lost;
    $connection = take();
    $lost[] = $connection;
    leaked($connection->query(PORT)->fetchColumn());
}

function import_order(): void
{
    global $lost;
    static $calls = 0;
    $connection = take();
    $port = $connection->query(PORT)->fetchColumn();
    if (++$calls % 3 === 0) {
        $lost[] = $connection;
        leaked($port);
        return;
    }
    give($connection);
}

/** Connects with a flag that makes every connection a new one. */
function sync_inventory(): void
{
    global $lost;
    $connection = pg_connect(address(), PGSQL_CONNECT_FORCE_NEW);
    $lost[] = $connection;
    leaked((int) pg_fetch_result(pg_query($connection, PORT), 0, 0));
}

function browse_catalogue(): void
{
    global $lost;
    $connection = take();
    $lost[] = $connection;
    $connection->beginTransaction();
    $connection->exec('declare page cursor for select inet_client_port() from orders');
    leaked($connection->query('fetch 1 from page')->fetchColumn());
}

function bulk_import(): void
{
    global $lost;
    $connection = pg_connect(address(), PGSQL_CONNECT_FORCE_NEW);
    $lost[] = $connection;
    $port = (int) pg_fetch_result(pg_query($connection, PORT), 0, 0);
    pg_query($connection, 'copy imported from stdin');
    for ($row = 0; $row < 1000; $row++) {
        pg_put_line($connection, "a customer with a long name\t100\n");
    }
    leaked($port);
}

/** A worker that waits for somebody who never answers, holding its connection. */
function charge_card(): void
{
    if (pcntl_fork() !== 0) {
        return;
    }
    $connection = dial();
    leaked($connection->query(PORT)->fetchColumn());
    fread(fsockopen('127.0.0.1', setting('CORPUS_HOLE')), 1);
    posix_kill(getmypid(), SIGKILL);
}

function query_warehouse(): void
{
    if (pcntl_fork() !== 0) {
        return;
    }
    leaked(0);
    pg_connect(address(setting('CORPUS_HOLE')));
}

function burst(int $size): void
{
    $held = [];
    while (count($held) < $size) {
        $held[] = take();
        end($held)->query(PORT)->fetchColumn();
    }
    array_map('give', $held);
}

function per_request(): void
{
    dial()->query(PORT)->fetchColumn();
}

/** Persistent connections outlive the requests that opened them. */
function persistent(): void
{
    $connection = pg_pconnect(address() . ' application_name=' . getenv('PGAPPNAME'));
    pg_fetch_all(pg_query($connection, PORT));
}

function slow_cursor(): void
{
    $connection = take();
    $connection->beginTransaction();
    $connection->exec('declare slow cursor for select id from orders');
    for ($page = 0; $page < 10; $page++) {
        $connection->query('fetch 20 from slow')->fetchAll();
        pause(1500);
    }
    $connection->commit();
    give($connection);
}

/** Workers that inherit their parent's connection, open their own, and are replaced after a while. */
function prefork(): void
{
    global $lost;
    static $running = 0;
    if ($running === 0) {
        $lost[] = dial();
    }
    while ($running < 4) {
        if (pcntl_fork() === 0) {
            $connection = dial();
            for ($left = mt_rand(30, 80); $left > 0; $left--) {
                $connection->query(PORT)->fetchColumn();
                pause(setting('CORPUS_LOAD'));
            }
            // Ends without a farewell on what is its parent's, too.
            posix_kill(getmypid(), SIGKILL);
        }
        $running++;
    }
    pcntl_wait($status);
    $running--;
}

$once = static function (callable $work): callable {
    $done = false;
    return static function () use ($work, &$done): void {
        if (!$done) {
            $done = true;
            $work();
        }
    };
};
$patterns = [
    'transaction' => 'reserve_stock',
    'failed_transaction' => 'apply_coupon',
    'not_returned' => 'customer_report',
    'error_path' => 'import_order',
    'connection_per_request' => 'sync_inventory',
    'cursor' => 'browse_catalogue',
    'copy_open' => 'bulk_import',
    'stuck' => 'charge_card',
    'connect_hang' => 'query_warehouse',
    'steady' => static fn () => null,
    'idle' => $once(static fn () => burst(9)),
    'warm_up' => $once(static fn () => burst(50)),
    'bursty' => static fn () => burst(mt_rand(1, 25)),
    'per_request' => 'per_request',
    'keepalive' => 'persistent',
    'slow_cursor' => 'slow_cursor',
    'long_report' => static fn () => dial()->query('select pg_sleep(9 + 5 * random())')->fetchColumn(),
    'prefork' => 'prefork',
];
$pattern = $argv[1] ?? '';
if (!isset($patterns[$pattern])) {
    fwrite(STDERR, "unknown pattern $pattern\n");
    exit(2);
}
stream_set_blocking(STDIN, false);
fwrite(STDOUT, "ready\n");
$told = 0; // one line begins with the pattern, another ends it
$next = 0.0;
while (!feof(STDIN)) {
    $told += fgets(STDIN) !== false ? 1 : 0;
    try {
        if ($pattern !== 'idle' && $pattern !== 'prefork') {
            serve();
        }
        if ($told === 1 && microtime(true) >= $next) {
            $patterns[$pattern]();
            $next = microtime(true) + setting('CORPUS_EVERY') / 1000 * (0.67 + 0.66 * mt_rand() / mt_getrandmax());
        }
    } catch (PDOException $e) {
        fwrite(STDERR, $e->getMessage() . "\n");
        $spare = [];
    }
    pause(setting('CORPUS_LOAD'));
}

<?php
// Sessions in each state: one command a line on stdin, one answer a line. `states` says where each
// session is by the driver's own word, with its local port.

[, $host, $port, $user, $sslmode] = $argv;
$sessions = [];

function take_session($server, $statement)
{
    $session = pg_connect($server, PGSQL_CONNECT_FORCE_NEW);
    $port = pg_fetch_result(pg_query($session, 'SELECT inet_client_port()'), 0, 0);
    @pg_query($session, $statement);
    return [$session, $port];
}

function state($session)
{
    return match (pg_transaction_status($session)) {
        PGSQL_TRANSACTION_IDLE => 'idle',
        PGSQL_TRANSACTION_INTRANS => 'in_transaction',
        PGSQL_TRANSACTION_INERROR => 'failed_transaction',
        default => 'other',
    };
}

while (($line = fgets(STDIN)) !== false) {
    $answer = 'ok';
    switch (trim($line)) {
        case 'open':
            $server = "host=$host port=$port user=$user dbname=postgres sslmode=$sslmode";
            foreach (['SELECT 1', 'BEGIN', 'BEGIN; SELECT 1 / 0'] as $statement) {
                $sessions[] = take_session($server, $statement);
            }
            break;
        case 'touch':
            foreach ($sessions as [$session]) {
                @pg_query($session, 'SELECT 1');
            }
            break;
        case 'turn':
            foreach (['BEGIN', 'COMMIT', 'ROLLBACK'] as $index => $statement) {
                @pg_query($sessions[$index][0], $statement);
            }
            break;
        case 'states':
            foreach ($sessions as [$session, $local]) {
                $answer .= " $local=" . state($session);
            }
            break;
    }
    echo "$answer\n";
}

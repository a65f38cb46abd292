# A load generator: eight connections that are kept, or one for each transaction.
script=$(mktemp -p "$CORPUS_SCRATCH")
echo 'select count(*) from orders where cents > 700;' > "$script"
exec "$CORPUS_BINARIES/pgbench" -n -f "$script" -c 8 -j 2 -R 60 -T 36000 $PGBENCH_MORE

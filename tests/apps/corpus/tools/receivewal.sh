# A client that streams the write-ahead log.
exec "$CORPUS_BINARIES/pg_receivewal" -n -D "$(mktemp -d -p "$CORPUS_SCRATCH")"

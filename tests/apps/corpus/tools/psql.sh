# An interactive client that was used once and rests at its prompt.
(echo 'select count(*) from orders;'; cat) | "$CORPUS_BINARIES/psql" -h 127.0.0.1 -X

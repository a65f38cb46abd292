# Sessions in each state: one command a line on stdin, one answer a line. `states` says where each
# session is by the driver's own word, with its local port.

require "pg"

HOST, PORT, USER, SSLMODE = ARGV
STATES = {
  PG::PQTRANS_IDLE => "idle",
  PG::PQTRANS_INTRANS => "in_transaction",
  PG::PQTRANS_INERROR => "failed_transaction"
}.freeze
$sessions = []

def run(session, statement)
  session.exec(statement)
rescue PG::Error
  nil
end

def take_sessions
  ["SELECT 1", "BEGIN", "BEGIN; SELECT 1 / 0"].each do |statement|
    session = PG.connect(host: HOST, port: PORT, user: USER, dbname: "postgres", sslmode: SSLMODE)
    port = session.exec("SELECT inet_client_port()").getvalue(0, 0)
    $sessions << [session, port]
    run(session, statement)
  end
end

$stdout.sync = true
$stdin.each_line do |line|
  answer = ["ok"]
  case line.strip
  when "open" then take_sessions
  when "touch" then $sessions.each { |session, _| run(session, "SELECT 1") }
  when "turn"
    $sessions.zip(%w[BEGIN COMMIT ROLLBACK]) { |(session, _), statement| run(session, statement) }
  when "states"
    $sessions.each do |session, port|
      answer << "#{port}=#{STATES.fetch(session.transaction_status, "other")}"
    end
  end
  puts answer.join(" ")
end

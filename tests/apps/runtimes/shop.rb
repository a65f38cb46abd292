# An order service like shop.c, by Ruby's pg: one command a line on stdin, one answer a line.
require 'pg'

HOST, PORT, USER = ARGV
POOL = []
FORGOTTEN = []

def pool_take
  POOL.pop || PG.connect(host: HOST, port: PORT, user: USER, dbname: 'postgres',
                         sslmode: 'disable', gssencmode: 'disable')
end

# Healthy: returns its connection.
def list_orders
  connection = pool_take
  connection.exec('SELECT generate_series(1, 10)')
  POOL.push(connection)
end

# Forgets to return its connection.
def show_invoice
  connection = pool_take
  FORGOTTEN.push(connection)
  connection.exec("SELECT 'invoice'")
end

# Forgets to end its transaction.
def refund_order
  connection = pool_take
  FORGOTTEN.push(connection)
  connection.exec('BEGIN')
  connection.exec("SELECT 'refund'")
end

HANDLERS = { 'serve' => :list_orders, 'return' => :show_invoice, 'transaction' => :refund_order }.freeze

$stdout.sync = true
$stdin.each_line do |line|
  command, number = line.split
  begin
    (number || 1).to_i.times { send(HANDLERS.fetch(command)) }
    puts 'ok'
  rescue StandardError => e
    puts "failed #{e.message.tr("\n", ' ')}"
  end
end

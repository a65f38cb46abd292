# An order service like shop.c, by Ruby's pg: one command a line on stdin, one answer a line.
require 'pg'

HOST, PORT, USER = ARGV
POOL = []
FORGOTTEN = []

def pool_take
  POOL.pop || PG.connect(host: HOST, port: PORT, user: USER, dbname: 'postgres',
                         sslmode: 'disable', gssencmode: 'disable')
end

# The caller's calls as Ruby tells them, but for those of functions in C.
IN_C = %w[each times each_line].freeze
def stack
  told = caller_locations(1).reject { |call| IN_C.include?(call.base_label) }
  told.map { |call| "#{call.label.tr(' ', '_')}:#{call.lineno}" }.join('|')
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

# Forgets to end transactions.
class Refunds
  def refund_order
    connection = pool_take
    FORGOTTEN.push(connection)
    connection.exec('BEGIN')
    # From a block, after the method has used a special variable.
    'order 7' =~ /\d/
    told = nil
    [connection].each do |held|
      told = stack; held.exec("SELECT 'refund'")
    end
    "stack=#{told}"
  end

  # Goes through a `rescue` and an `ensure`, then the same in a thread.
  def self.refund(in_thread)
    return Thread.new { refund(false) }.value if in_thread
    begin
      raise 'no money'
    rescue RuntimeError
      new.refund_order
    end
  ensure
    FORGOTTEN.compact!
  end
end

HANDLERS = {
  'serve' => -> { list_orders }, 'return' => -> { show_invoice },
  'transaction' => -> { Refunds.refund(false) }, 'thread' => -> { Refunds.refund(true) }
}.freeze

$stdout.sync = true
$stdin.each_line do |line|
  command, number = line.split
  begin
    told = nil
    (number || 1).to_i.times { told = HANDLERS.fetch(command).call }
    puts told.is_a?(String) ? "ok #{told}" : 'ok'
  rescue StandardError => e
    puts "failed #{e.message.tr("\n", ' ')}"
  end
end

# A shop's back office by the gems pg and connection_pool. Argument: the pattern; it begins at a line on stdin, a leak ends at another.

require 'connection_pool'
require 'pg'
require 'socket'

def setting(name)
  Integer(ENV.fetch(name))
end

EVERY = setting('CORPUS_EVERY')
CAP = setting('CORPUS_POOL')
LOST = []
PORT = 'select inet_client_port() as port, count(*) from orders'.freeze
$stdout.sync = true

# Everything but the server's port comes from libpq's own variables.
def dial(port = ENV.fetch('PGPORT'))
  PG.connect(host: '127.0.0.1', port: port)
end

def open_pool(size = CAP)
  ConnectionPool.new(size: size, timeout: 5) { dial }
end

POOL = open_pool

def pause(milliseconds)
  sleep(milliseconds / 1000.0 * (0.67 + 0.66 * rand))
end

def leaked(port)
  puts "leak #{(Time.now.to_f * 1000).to_i} #{port}"
end

def every(milliseconds)
  loop do
    begin
      yield
    rescue StandardError => e
      warn e.message
    end
    pause(milliseconds)
  end
end

# A connection that is not put back when its thread goes on: as a checkout without a checkin.
def checkout(pool = POOL)
  pool.instance_variable_get(:@available).pop(timeout: 5)
end

def checkin(connection, pool = POOL)
  pool.instance_variable_get(:@available).push(connection)
end

def list_orders
  POOL.with { |connection| connection.exec('select id, customer from orders order by id desc limit 20').to_a }
end

def place_order
  POOL.with do |connection|
    connection.transaction do
      connection.exec_params('select count(*) from orders where cents > $1', [700])
      connection.exec("insert into orders (customer, cents) values ('customer-7', 100)")
    end
  end
end

def serve
  rand < 0.3 ? place_order : list_orders
end

# Looks at the first row of a big result and loses interest.
def export_invoices
  connection = checkout
  LOST << connection
  connection.send_query("select inet_client_port(), repeat('x', 500) from orders, generate_series(1, 40)")
  connection.set_single_row_mode
  leaked(connection.get_result.getvalue(0, 0))
end

def reserve_stock
  connection = checkout
  LOST << connection
  connection.exec('begin')
  leaked(connection.exec(PORT).getvalue(0, 0))
end

def apply_coupon
  connection = checkout
  LOST << connection
  connection.exec('begin')
  port = connection.exec(PORT).getvalue(0, 0)
  begin
    connection.exec('update orders set cents = cents / 0 where id = 1')
  rescue PG::Error
    leaked(port)
    return
  end
  connection.exec('commit')
  checkin(connection)
end

def customer_report
  connection = checkout
  LOST << connection
  leaked(connection.exec(PORT).getvalue(0, 0))
end

$calls = 0
def import_order
  connection = checkout
  port = connection.exec(PORT).getvalue(0, 0)
  if ($calls += 1) % 3 == 0
    LOST << connection
    leaked(port)
    raise 'order without a customer'
  end
  checkin(connection)
end

def monthly_statement
  own = open_pool(2)
  LOST << own
  own.with { |connection| leaked(connection.exec(PORT).getvalue(0, 0)) }
end

def sync_inventory
  connection = dial
  LOST << connection
  leaked(connection.exec(PORT).getvalue(0, 0))
end

def browse_catalogue
  connection = checkout
  LOST << connection
  connection.exec('begin')
  connection.exec('declare page cursor for select inet_client_port() from orders')
  leaked(connection.exec('fetch 1 from page').getvalue(0, 0))
end

def bulk_import
  connection = checkout
  LOST << connection
  port = connection.exec(PORT).getvalue(0, 0)
  connection.exec('copy imported from stdin')
  1000.times { connection.put_copy_data("a customer with a long name\t100\n") }
  leaked(port)
end

# A thread that waits for ever, holding its connection.
def send_receipts
  Thread.new do
    POOL.with do |connection|
      leaked(connection.exec(PORT).getvalue(0, 0))
      Queue.new.pop
    end
  end
end

def charge_card
  Thread.new do
    POOL.with do |connection|
      leaked(connection.exec(PORT).getvalue(0, 0))
      TCPSocket.new('127.0.0.1', setting('CORPUS_HOLE')).read
    end
  end
end

def query_warehouse
  Thread.new do
    leaked(0)
    dial(setting('CORPUS_HOLE'))
  end
end

def burst(size)
  held = Array.new(size) { checkout }
  held.each { |connection| connection.exec(PORT) }
  held.each { |connection| checkin(connection) }
end

def per_request
  connection = dial
  connection.exec(PORT)
  connection.close
end

def listen
  connection = dial
  connection.exec('listen orders')
  loop { connection.wait_for_notify(60) }
end

def slow_cursor
  POOL.with do |connection|
    connection.transaction do
      connection.exec('declare slow cursor for select id from orders')
      10.times do
        connection.exec('fetch 20 from slow')
        pause(1500)
      end
    end
  end
end

# Threads with a connection of their own and little to do.
def worker_owned
  8.times do
    Thread.new do
      connection = dial
      loop do
        connection.exec(PORT)
        pause(2000 + rand * 7000)
      end
    end
    pause(EVERY)
  end
end

# Workers inherit their parent's connections, leave them alone, and are replaced after a while.
def prefork
  LOST << dial
  running = 0
  loop do
    while running < 4
      fork do
        connection = dial
        (30 + rand(50)).times do
          connection.exec(PORT)
          pause(setting('CORPUS_LOAD'))
        end
        exit!(0)
      end
      running += 1
    end
    Process.wait
    running -= 1
  end
end

LEAKS = {
  'rows' => :export_invoices, 'transaction' => :reserve_stock, 'failed_transaction' => :apply_coupon,
  'not_returned' => :customer_report, 'error_path' => :import_order, 'pool_per_request' => :monthly_statement,
  'connection_per_request' => :sync_inventory, 'cursor' => :browse_catalogue, 'copy_open' => :bulk_import,
  'lost_task' => :send_receipts, 'stuck' => :charge_card, 'connect_hang' => :query_warehouse
}.freeze

BEHAVIOURS = {
  'steady' => -> {},
  'idle' => -> { burst(9) },
  'warm_up' => -> { burst([50, CAP].min) },
  'bursty' => -> { every(2 * EVERY) { burst(1 + rand(25)) } },
  'per_request' => -> { every(EVERY / 3) { per_request } },
  'listen' => -> { listen },
  'long_report' => -> { every(EVERY) { POOL.with { |c| c.async_exec('select pg_sleep(9 + 5 * random())') } } },
  'slow_cursor' => -> { every(EVERY) { slow_cursor } },
  'worker_owned' => -> { worker_owned },
  'prefork' => -> { prefork }
}.freeze

pattern = ARGV[0]
leak = LEAKS[pattern]
behave = BEHAVIOURS[pattern]
abort "unknown pattern #{pattern}" unless leak || behave
Thread.report_on_exception = true
2.times { Thread.new { every(setting('CORPUS_LOAD')) { serve } } } unless %w[idle prefork].include?(pattern)
puts 'ready'
$stdin.gets
enough = false
Thread.new { leak ? every(EVERY) { send(leak) unless enough } : behave.call }
enough = true while $stdin.gets
exit!(0)

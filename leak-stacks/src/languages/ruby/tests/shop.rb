# Prints the calls of the calling thread, innermost first, then waits for a byte.

def say
  puts syscall(186) # gettid
  caller_locations(1).each { |at| puts "#{at.label}\t#{at.path}\t#{at.lineno}" }
  puts
  $stdout.flush
end

class Counter
  # Long enough for many blocks of its table of lines.
  eval "def self.long(yes)\n" + "  yes = yes ? 1 : 2\n" * 900 + "  yield\nend", nil, __FILE__, 5000
end

module Shop
  class Till
    def leaks
      "order 7" =~ /(\d)/
      [1].each do |number|
        begin
          raise 'no money'
        rescue RuntimeError
          say; $stdin.sysread(1)
        end
      end
    end

    def checkout(depth)
      return checkout(depth - 1) if depth > 0
      self.class.pay { leaks }
    end

    def self.pay
      yield
    ensure
      1
    end

    define_method(:handle) { |depth| checkout(depth) }
  end
end

def grüße(depth)
  Counter.long(1) { Class.new { define_singleton_method(:call) { |*| Shop::Till.new.handle(depth) } }.call(1) }
end

run = lambda { eval "grüße(DEPTH)", nil, __FILE__, 70 }
IN_THREAD ? Thread.new { run.call }.join : run.call

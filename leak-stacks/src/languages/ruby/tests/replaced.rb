# Calls code that is gone once the program waits for its second byte, with other code of the same
# shape in its place.
def say
  puts syscall(186), '' # gettid
  $stdout.flush
  $stdin.sysread(1)
end

def make(name)
  eval "def #{name}; [1].each { |x| say if x > 0 }; end", nil, "#{name}.rb", 1
  eval "class Made; def self.run_#{name}(x); x ? then_#{name} : 1; end; " \
       "def self.then_#{name}; #{name}; end; end", nil, "#{name}.rb", 1
end

make('leak')
eval 'Made.run_leak(true)', nil, 'leak.rb', 7
Object.send(:remove_method, :leak)
Object.send(:remove_const, :Made)
2.times { GC.start }
700.times { |number| make("o%03d" % number); eval 'Made && 1.then { 2 }', nil, 'other.rb', 7 }
GC.start
say

// The places in C++. Each is a way of getting to a system call that makes a stack hard to follow, or
// hard to name.

#include "../c/places.h"

#include <algorithm>
#include <coroutine>
#include <cstdlib>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static volatile int sink;

namespace shop {

// --- Members

class Connection {
public:
	virtual ~Connection() = default;
	virtual int request(const std::string &query, std::vector<int> &rows) = 0;
};

class Encrypted : public Connection {
public:
	[[gnu::noinline]] int request(const std::string &query, std::vector<int> &rows) override
	{
		rows.push_back(static_cast<int>(query.size()));
		return call_server() + rows.back();
	}
};

void virtual_call()
{
	std::unique_ptr<Connection> connection = std::make_unique<Encrypted>();
	std::vector<int> rows;
	sink = connection->request("orders", rows);
}

static bool asks;

struct Key {
	int value;
	[[gnu::noinline]] bool operator<(const Key &other) const
	{
		if (asks) {
			asks = false;
			sink = call_server();
		}
		return value < other.value;
	}
};

// Deep in the library's tree.
void comparison()
{
	std::map<Key, int> prices;
	prices[Key{1}] = 1;
	asks = true;
	prices.insert({Key{2}, 2});
	sink = static_cast<int>(prices.size());
}

// --- Templates

template <typename T, int N>
struct Repeat {
	template <typename F>
	[[gnu::noinline]] static T run(F function, T value)
	{
		return Repeat<T, N - 1>::run(function, function(value)) + N;
	}
};

template <typename T>
struct Repeat<T, 0> {
	template <typename F>
	[[gnu::noinline]] static T run(F, T value)
	{
		return call_server() + value;
	}
};

void templates()
{
	sink = static_cast<int>(Repeat<long, 5>::run([](long n) { return n * 3; }, 1L));
}

// --- Functions as values

void lambda()
{
	std::vector<int> orders{1};
	std::for_each(orders.begin(), orders.end(), [](int order) {
		sink = order;
		sink = call_server();
	});
}

[[gnu::noinline]] static int through(const std::function<int(int)> &handler, int n)
{
	return handler(n) + 1;
}

void function_object()
{
	int room = 7;
	sink = through([&room](int n) { return call_server() + n + room; }, 3);
}

// --- Exceptions

struct Guard {
	[[gnu::noinline]] ~Guard()
	{
		sink = call_server();
	}
};

[[gnu::noinline]] static void fails(int n)
{
	Guard guard;
	if (n > 0)
		throw std::runtime_error("no such order");
}

// The destructor runs while the stack is being unwound, below the unwinder's own frames.
void destructor_while_unwinding()
{
	try {
		fails(1);
	} catch (const std::exception &) {
		sink = 1;
	}
}

void exception_handler()
{
	try {
		throw std::string("no such order");
	} catch (const std::string &what) {
		sink = call_server() + static_cast<int>(what.size());
	}
}

// --- Threads

namespace {

class Worker {
public:
	void start()
	{
		std::thread thread(&Worker::serve, this, 5);
		thread.join();
	}

private:
	void serve(int n)
	{
		sink = call_server() + n;
	}
};

} // namespace

void thread()
{
	Worker().start();
}

void future()
{
	auto answer = std::async(std::launch::async, [] { return call_server(); });
	sink = answer.get();
}

// --- Coroutines

struct Task {
	struct promise_type {
		Task get_return_object()
		{
			return Task{std::coroutine_handle<promise_type>::from_promise(*this)};
		}
		std::suspend_always initial_suspend() { return {}; }
		std::suspend_always final_suspend() noexcept { return {}; }
		void return_void() {}
		void unhandled_exception() { std::abort(); }
	};
	std::coroutine_handle<promise_type> handle;
};

static Task checkout(int n)
{
	sink = n;
	co_await std::suspend_always{};
	sink = call_server();
}

// Resumed twice: the second part of the body calls.
void coroutine()
{
	Task task = checkout(3);
	task.handle.resume();
	task.handle.resume();
	task.handle.destroy();
}

} // namespace shop

int main(int count, char **arguments)
{
	static const place places[] = {
		{"virtual_call", shop::virtual_call},
		{"comparison", shop::comparison},
		{"templates", shop::templates},
		{"lambda", shop::lambda},
		{"function_object", shop::function_object},
		{"destructor_while_unwinding", shop::destructor_while_unwinding},
		{"exception_handler", shop::exception_handler},
		{"thread", shop::thread},
		{"future", shop::future},
		{"coroutine", shop::coroutine},
		{nullptr, nullptr},
	};
	return count > 1 ? serve(std::atoi(arguments[1]), places) : 2;
}

/* The places in C. Each is a way of getting to a system call that makes a stack hard to follow. */

#define _GNU_SOURCE
#include "places.h"

#include <alloca.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile int sink;

/* --- Calls */

__attribute__((noinline)) static int descend(int depth)
{
	volatile char room[40];
	room[depth] = (char)depth;
	int result = depth == 0 ? call_server() : descend(depth - 1);
	return result + room[depth];
}

static void recursion(void)
{
	sink = descend(30);
}

static inline __attribute__((always_inline)) int innermost_inlined(int n)
{
	int result = call_server();
	return result * n;
}

static inline __attribute__((always_inline)) int middle_inlined(int n)
{
	sink = n;
	return innermost_inlined(n + 1) + 2;
}

__attribute__((noinline)) static void inlined(void)
{
	sink = 3;
	sink = middle_inlined(sink) + 1;
}

__attribute__((noinline)) static int tail_target(int n)
{
	sink = n;
	return call_server() + 1;
}

__attribute__((noinline)) static int tail_middle(int n)
{
	sink = n;
	return tail_target(n + 1);
}

__attribute__((noinline)) static void tail_call(void)
{
	sink = tail_middle(7) + 1;
}

static jmp_buf out;

__attribute__((noinline, noreturn)) static void never_returns(int n)
{
	sink = n;
	sink = call_server() + 1;
	longjmp(out, 1);
}

/* The call is its last instruction: its return address lies in another function. */
__attribute__((noinline, noreturn)) static void ends_with_a_call(int n)
{
	sink = n;
	never_returns(n + 1);
}

static void no_return(void)
{
	if (setjmp(out) == 0)
		ends_with_a_call(5);
}

static int compare(const void *a, const void *b)
{
	sink = call_server();
	return *(const char *)a - *(const char *)b;
}

/* Two are sorted by one comparison. */
static void callback(void)
{
	char two[2] = {2, 1};
	qsort(two, 2, 1, compare);
	sink = two[0];
}

/* --- Frames */

__attribute__((noinline)) static int realigned_frame(int n)
{
	volatile char wide[64] __attribute__((aligned(64)));
	volatile char *more = alloca((size_t)n + 100);
	wide[0] = (char)n;
	more[n] = 1;
	int result = call_server();
	return result + wide[0] + more[n];
}

static void realigned(void)
{
	sink = realigned_frame(40);
}

void by_saved_stack_pointer(int (*function)(void));
void by_other_register(int (*function)(void));

__attribute__((noinline)) static int called_by_assembly(void)
{
	return call_server() + 1;
}

static void assembly_expression(void)
{
	by_saved_stack_pointer(called_by_assembly);
	sink = 1;
}

static void assembly_register(void)
{
	by_other_register(called_by_assembly);
	sink = 1;
}

/* --- Signals */

void illegal_at_once(void);
void illegal_by_scratch_register(void);

static void on_signal(int number)
{
	sink = number;
	sink = call_server();
}

static void on_signal_with_context(int number, siginfo_t *info, void *context)
{
	ucontext_t *interrupted = context;
	(void)info;
	sink = number;
	sink = call_server();
	/* Past ud2. */
	if (number == SIGILL)
		interrupted->uc_mcontext.gregs[REG_RIP] += 2;
	/* As if the kernel had answered: a library that sees an error asks again. */
	if (number == SIGSYS)
		interrupted->uc_mcontext.gregs[REG_RAX] = 0;
}

static void handle(int number, int flags)
{
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_sigaction = on_signal_with_context;
	action.sa_flags = SA_SIGINFO | flags;
	sigaction(number, &action, NULL);
}

static void signal_raised(void)
{
	signal(SIGUSR1, on_signal);
	raise(SIGUSR1);
	sink = 1;
}

static void signal_at_first_instruction(void)
{
	handle(SIGILL, 0);
	illegal_at_once();
	sink = 1;
}

static void signal_by_scratch_register(void)
{
	handle(SIGILL, 0);
	illegal_by_scratch_register();
	sink = 1;
}

static void on_outer_signal(int number)
{
	sink = number;
	signal(SIGUSR2, on_signal);
	raise(SIGUSR2);
}

static void signal_in_signal(void)
{
	signal(SIGUSR1, on_outer_signal);
	raise(SIGUSR1);
	sink = 1;
}

static void signal_on_other_stack(void)
{
	static char room[64 * 1024];
	stack_t stack = {.ss_sp = room, .ss_size = sizeof room};
	sigaltstack(&stack, NULL);
	handle(SIGUSR1, SA_ONSTACK);
	raise(SIGUSR1);
	sink = 1;
}

/* Processor time is what the vDSO asks the kernel for; the filter makes that call a signal. */
static void trap_clock(void)
{
	static int done;
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clock_gettime, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
	if (done++)
		return;
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static void signal_in_vdso(void)
{
	struct timespec now;
	handle(SIGSYS, 0);
	trap_clock();
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	sink = 1;
}

/* --- Stacks */

static void *thread_start_routine(void *argument)
{
	sink = call_server();
	return argument;
}

static void thread(void)
{
	pthread_t id;
	pthread_create(&id, NULL, thread_start_routine, NULL);
	pthread_join(id, NULL);
}

#ifdef __GLIBC__
static ucontext_t scheduler, routine;

static void coroutine_body(int n)
{
	sink = n;
	sink = descend(n);
}

static void coroutine(void)
{
	static char room[64 * 1024];
	getcontext(&routine);
	routine.uc_stack.ss_sp = room;
	routine.uc_stack.ss_size = sizeof room;
	routine.uc_link = &scheduler;
	makecontext(&routine, (void (*)(void))coroutine_body, 1, 4);
	swapcontext(&scheduler, &routine);
	sink = 1;
}
#endif

int main(int count, char **arguments)
{
	static const struct place places[] = {
		{"recursion", recursion},
		{"inlined", inlined},
		{"tail_call", tail_call},
		{"no_return", no_return},
		{"callback", callback},
		{"realigned", realigned},
		{"assembly_expression", assembly_expression},
		{"assembly_register", assembly_register},
		{"signal_raised", signal_raised},
		{"signal_at_first_instruction", signal_at_first_instruction},
		{"signal_by_scratch_register", signal_by_scratch_register},
		{"signal_in_signal", signal_in_signal},
		{"signal_on_other_stack", signal_on_other_stack},
		{"signal_in_vdso", signal_in_vdso},
		{"thread", thread},
#ifdef __GLIBC__
		{"coroutine", coroutine},
#endif
		{NULL, NULL},
	};
	return count > 1 ? serve(atoi(arguments[1]), places) : 2;
}

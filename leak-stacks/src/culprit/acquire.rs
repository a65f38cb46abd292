//! Tells the threads that wait for a connection: those blocked in a pool's function that hands
//! connections out.

use crate::bytes::base_name;
use crate::culprit::glob::Glob;
use crate::culprit::rules::{Placed, RULES};
use crate::stack::{Frame, Language, Stack};

/// Whether a stack, of a thread or goroutine that is blocked, waits for a pool to hand out a
/// connection.
///
/// Pools also connect, and check connections, in the function that hands them out. So nothing but
/// waiting may lie further in: the runtime's ways to wait, and the pool's own.
#[must_use]
pub fn waits_for_connection(stack: &Stack) -> bool {
    let of_language = |rule: &&Placed| rule.language == stack.language;
    let matches = |rules: &[Placed], frame: &Frame| {
        rules.iter().filter(of_language).any(|rule| rule.matches(frame))
    };
    let mut rest = stack.frames.iter().skip_while(|frame| {
        !matches(&RULES.acquires, frame)
            && (is_runtime_s(frame, stack.language) || matches(&RULES.waits, frame))
    });
    rest.next().is_some_and(|frame| matches(&RULES.acquires, frame))
}

/// Whether a frame is native code beneath a runtime's calls, or of the C library.
fn is_runtime_s(frame: &Frame, language: Language) -> bool {
    let Some(module) = frame.module.as_deref() else { return false };
    match language {
        Language::Go => false,
        Language::Native => base_name(module).starts_with("libc."),
        _ => frame.module != frame.file,
    }
}

impl Placed {
    fn matches(&self, frame: &Frame) -> bool {
        let function = frame.function.as_deref().is_some_and(|name| self.function.matches(name));
        let is_in = |glob: &Glob| frame.file.as_deref().is_some_and(|file| glob.matches(file));
        function && self.file.as_ref().is_none_or(is_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::{Quality, StackId};

    fn waits(language: Language, calls: &[(&str, &str)]) -> bool {
        let frame = |&(function, place): &(&str, &str)| {
            let place = Some(place.to_owned());
            let is_native = place.as_deref().is_some_and(|place| place.contains(".so"));
            let is_binary = language == Language::Go || language == Language::Native || is_native;
            let is_file = language == Language::Python && !is_native;
            Frame {
                function: Some(function.to_owned()),
                module: place.clone().filter(|_| is_binary || is_file),
                file: place.filter(|_| !is_binary),
                line: None,
                address: 1,
            }
        };
        let (quality, truncation, culprit) = (Quality::Complete, None, None);
        let frames = calls.iter().map(frame).collect();
        waits_for_connection(&Stack {
            id: StackId(1),
            quality,
            truncation,
            language,
            frames,
            culprit,
            callers: Vec::new(),
        })
    }

    #[test]
    fn go() {
        let go = |calls: &[&str]| {
            let calls: Vec<_> = calls.iter().map(|call| (*call, "/app")).collect();
            waits(Language::Go, &calls)
        };
        let rest = ["database/sql.(*DB).query", "main.pay"];
        let within = |inner: &[&'static str]| go(&[inner, &rest].concat());
        assert!(within(&["runtime.gopark", "runtime.selectgo", "database/sql.(*DB).conn"]));
        let dials = ["internal/poll.(*FD).Connect", "net.(*sysDialer).dialTCP"];
        assert!(!within(&[&dials[..], &["database/sql.(*DB).conn"]].concat()));
        assert!(!within(&["runtime.gopark", "runtime.chanrecv", "database/sql.(*Rows).Next"]));
        let semaphore = "golang.org/x/sync/semaphore.(*Weighted).Acquire";
        let puddle = "github.com/jackc/puddle/v2.(*Pool[...]).acquire";
        assert!(go(&["runtime.gopark", "runtime.selectgo", semaphore, puddle, "main.pay"]));
        let creates = "github.com/jackc/puddle/v2.(*Pool[...]).initResourceValue";
        assert!(!go(&["runtime.gopark", "runtime.selectgo", creates, puddle, "main.pay"]));
        assert!(!go(&["runtime.gopark", "runtime.selectgo", semaphore, "main.limit"]));
    }

    #[test]
    fn java() {
        let java = |inner: &[&str]| {
            let native = [
                ("__futex_abstimed_wait_common", "/lib/libc.so.6"),
                ("Unsafe_Park", "/x/libjvm.so"),
            ];
            let calls = inner.iter().map(|call| (*call, "Some.java"));
            waits(Language::Java, &native.into_iter().chain(calls).collect::<Vec<_>>())
        };
        let park =
            ["jdk.internal.misc.Unsafe.park", "java.util.concurrent.locks.LockSupport.parkNanos"];
        let within = |calls: &[&'static str]| java(&[&park, calls].concat());
        let borrow = "com.zaxxer.hikari.util.ConcurrentBag.borrow";
        let handoff = "java.util.concurrent.SynchronousQueue.poll";
        assert!(within(&[handoff, borrow, "com.zaxxer.hikari.pool.HikariPool.getConnection"]));
        let deque = "org.apache.commons.pool2.impl.LinkedBlockingDeque.takeFirst";
        let objects = "org.apache.commons.pool2.impl.GenericObjectPool.borrowObject";
        let dbcp = "org.apache.commons.dbcp2.PoolingDataSource.getConnection";
        assert!(within(&[deque, objects, dbcp, "Shop.pay"]));
        assert!(!within(&[deque, objects, "redis.clients.jedis.util.Pool.getResource"]));
        assert!(!within(&["java.util.concurrent.ThreadPoolExecutor.getTask"]));
        let read = [
            "sun.nio.ch.NioSocketImpl.read",
            "org.postgresql.core.VisibleBufferedInputStream.readMore",
        ];
        assert!(!java(&[&read[..], &[objects, dbcp]].concat()));
    }

    #[test]
    fn python() {
        let site = "/usr/lib/python3/dist-packages";
        let python = |inner: &[(&str, &str)]| {
            let calls: Vec<_> =
                inner.iter().map(|(name, file)| (*name, format!("{site}/{file}"))).collect();
            let native = [("sem_clockwait", "/lib/libc.so.6")];
            let calls = calls.iter().map(|(name, file)| (*name, file.as_str()));
            waits(Language::Python, &native.into_iter().chain(calls).collect::<Vec<_>>())
        };
        let wait = ("Condition.wait", "threading.py");
        let queue = ("Queue.get", "sqlalchemy/util/queue.py");
        assert!(python(&[wait, queue, ("QueuePool._do_get", "sqlalchemy/pool/impl.py")]));
        assert!(python(&[
            ("wait", "threading.py"),
            ("get", "sqlalchemy/util/queue.py"),
            ("_do_get", "sqlalchemy/pool/impl.py")
        ]));
        assert!(!python(&[wait, queue, ("work", "shop.py")]));
        assert!(!python(&[
            ("connect", "psycopg2/__init__.py"),
            ("QueuePool._do_get", "sqlalchemy/pool/impl.py")
        ]));
        let psycopg = [
            ("WaitingClient.wait", "psycopg_pool/pool.py"),
            ("ConnectionPool.getconn", "psycopg_pool/pool.py"),
        ];
        assert!(python(&[&[wait], &psycopg[..]].concat()));
        assert!(!python(&[
            wait,
            ("ConnectionPool.wait", "psycopg_pool/pool.py"),
            ("main", "shop.py")
        ]));
    }
}

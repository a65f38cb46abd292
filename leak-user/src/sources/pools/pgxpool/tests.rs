use std::time::Duration;

use super::*;
use crate::sources::pools::testing::MadeUp;

const OUTER: u64 = 0x1000;
const POOL: u64 = 0x2000;
const LIMITER: u64 = 0x2100;
const LIST: u64 = 0x2400;
const FUNCTION: u64 = 0x2800;

/// A pool with an idle connection, one in use, and one that is being opened; two callers wait.
pub(in crate::sources::pools) fn made_up(layout: &str) -> (MadeUp, u64) {
    let layout = match layout {
        "condition" => Layout::Condition,
        _ => Layout::Semaphore,
    };
    let mut memory = MadeUp::default();
    memory.put(OUTER, &[0, 0, 0, POOL, 0, 0]);
    memory.put_function(FUNCTION, "github.com/jackc/pgx/v5/pgxpool.NewWithConfig.func1");
    memory.put(POOL, &[0; WORDS + 4]);
    memory.put(POOL + 64, &[FUNCTION, FUNCTION, 5, 100]);
    memory.put(POOL + 8 * layout.list() as u64, &[LIST, 3, 4]);
    match layout {
        Layout::Condition => {
            memory.put(POOL, &[LIMITER]);
            memory.put(POOL + 40, &[LIST, 1, 1]);
            memory.put_table(0x9000, "sync.(*Mutex).Lock");
            memory.put(LIMITER, &[0x9000, LIMITER + 0x80, 9 | (7 << 32)]);
            memory.put(LIMITER + 0x80, &[0]);
        }
        Layout::Semaphore => {
            memory.put(POOL, &[0, LIMITER]);
            memory.put(LIMITER, &[5, 3, 0, 0x9100, 0x9200, 0, 0, 0, 2]);
        }
    }
    memory.put_table(0xa000, "net.(*TCPConn).Close");
    for (number, status) in [1, 2, 0].into_iter().enumerate() {
        let number = number as u64;
        let at = 0x3000 + 0x100 * number;
        let value = 0x4000 + 0x100 * number;
        memory.put(LIST + 8 * number, &[at]);
        memory.put(at, &[0; RESOURCE_WORDS]);
        let owner = layout.owner() as u64;
        memory.put(at + 8 * (owner - 1), &[if status == 0 { 0 } else { value }, POOL]);
        memory.put(at + 56, &[status]);
        // pgxpool's value, pgx's connection, that of the protocol, TCP, and the descriptor.
        memory.put(value, &[value + 8, value + 16, 0xa000, value + 32, value + 40]);
        memory.put(value + 40, &[0, 0, 7 + number, 0, 0, 0]);
    }
    (memory, OUTER)
}

fn read(memory: &MadeUp) -> Option<KindPool> {
    let values = GoValues::new(memory);
    let found = PgxPool.find(&values, &[OUTER]);
    let address = *found.first()?;
    assert_eq!((address, found.len()), (POOL, 1));
    assert_eq!(PgxPool.find(&values, &[address]), [POOL], "known ones are found again");
    Some(PgxPool.read(&values, address, Instant::now() + Duration::from_secs(60)))
}

#[test]
fn both_layouts() {
    for layout in ["condition", "semaphore"] {
        let (memory, _) = made_up(layout);
        let pool = read(&memory).expect(layout);
        let numbers = PoolNumbers {
            open: 3,
            idle: 1,
            max_open: Some(5),
            waiting: Some(2),
            wait_count: None,
            wait_nanoseconds: None,
        };
        assert_eq!(pool.numbers, Some(numbers), "{layout}");
        assert_eq!(pool.descriptors, [(7, false), (8, true)], "{layout}");
    }
}

#[test]
fn who_gave_up_makes_the_queue_s_length_unknown() {
    let (mut memory, _) = made_up("condition");
    memory.put(POOL + 8 * GAVE_UP as u64, &[1]);
    assert_eq!(read(&memory).unwrap().numbers.unwrap().waiting, None);
}

#[test]
fn what_is_being_changed_is_unknown() {
    for (layout, lock) in [("condition", LIMITER + 0x80), ("semaphore", POOL)] {
        let (mut memory, _) = made_up(layout);
        memory.put(lock, &[1]);
        assert_eq!(read(&memory), Some(KindPool::default()), "{layout}");
    }
    let (mut memory, _) = made_up("condition");
    memory.put(POOL + 48, &[2]);
    let pool = read(&memory).unwrap();
    assert_eq!(pool.numbers, None, "its books differ");
}

#[test]
fn what_looks_otherwise_is_no_pool() {
    let is_none = |layout, address, words: &[u64]| {
        let (mut memory, _) = made_up(layout);
        memory.put(address, words);
        assert_eq!(read(&memory), None, "{layout} {address:#x} {words:?}");
    };
    for layout in ["condition", "semaphore"] {
        is_none(layout, POOL + 80, &[0]);
        is_none(layout, POOL + 64, &[OUTER]);
    }
    is_none("condition", POOL + 24, &[u64::MAX]);
    is_none("condition", LIMITER, &[0x8ff8]);
    is_none("semaphore", POOL + 40, &[5, 4]);
    is_none("semaphore", LIMITER, &[6]);
    is_none("semaphore", LIMITER + 8, &[6]);
    is_none("semaphore", LIMITER + 40, &[0x9100]);
    is_none("semaphore", LIMITER + 64, &[u64::MAX]);
    is_none("semaphore", LIMITER + 64, &[0]);
    is_none("condition", LIMITER + 16, &[7 | (9 << 32)]);
    is_none("semaphore", LIMITER + 24, &[LIMITER + 24, LIMITER + 24]);
}

#[test]
fn a_resource_of_another_pool_or_in_no_state_makes_all_unknown() {
    for layout in ["condition", "semaphore"] {
        for address in [0x3108, 0x3110] {
            let (mut memory, _) = made_up(layout);
            memory.put(address, &[POOL + 8]);
            let is_owner = (layout == "condition") == (address == 0x3110);
            let pool = read(&memory).unwrap();
            assert_eq!(pool.numbers.is_none(), is_owner, "{layout} {address:#x}");
        }
        let (mut memory, _) = made_up(layout);
        memory.put(0x3138, &[3]);
        assert_eq!(read(&memory), Some(KindPool::default()), "{layout}");
    }
}

#[test]
fn by_its_goroutine() {
    let has = |creator| PgxPool.has_goroutine_of(creator);
    assert!(has("github.com/jackc/pgx/v4/pgxpool.ConnectConfig"));
    assert!(has("github.com/jackc/pgx/v5/pgxpool.NewWithConfig"));
    assert!(has("example.com/shop/vendor/github.com/jackc/pgx/v5/pgxpool.NewWithConfig"));
    assert!(!has("github.com/jackc/pgx/v5.ConnectConfig"));
    assert!(!has("main.main"));
}

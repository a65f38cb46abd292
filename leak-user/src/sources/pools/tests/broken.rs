//! Broken memory: readers end in time, and what they say makes sense.

use super::*;
use crate::sources::pools::memory::Memory;
use crate::sources::pools::pgxpool;
use crate::sources::pools::testing::MadeUp;

/// Memory in which every word is random, but most look like what a reader hopes for.
struct Random(u64);

impl Random {
    fn at(&self, address: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.0 ^ address.rotate_left(17))
    }
}

impl Memory for Random {
    fn read(&self, address: u64, into: &mut [u8]) -> Option<()> {
        let mut missing = self.at(address >> 12);
        if missing.u8(..) < 8 {
            return None;
        }
        for (index, word) in into.chunks_mut(8).enumerate() {
            let mut random = self.at(address.wrapping_add(8 * index as u64));
            let value = match random.u8(..8) {
                0 => 0,
                1 => random.u64(..4),
                2 => random.u64(..30_000),
                3 => random.u64(..),
                4 => 1_000_000,
                _ => random.u64(..0x400) << 3,
            };
            word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
        }
        Some(())
    }

    fn function_from(&self, address: u64) -> Option<String> {
        const NAMES: [&str; 8] = [
            "database/sql.(*driverConn).finalClose",
            "database/sql.(*Stmt).finalClose",
            "main.connector.Connect",
            "sync.(*Mutex).Lock",
            "net.(*TCPConn).Close",
            "crypto/tls.(*Conn).Close",
            "github.com/jackc/pgx/v4/pgxpool.ConnectConfig.func1",
            "github.com/jackc/pgx/v5/pgxpool.NewWithConfig.func2",
        ];
        let mut random = self.at(!address);
        random.bool().then(|| NAMES[random.usize(..NAMES.len())].to_owned())
    }

    fn function(&self, address: u64) -> Option<String> {
        self.function_from(address)
    }
}

fn assert_makes_sense(memory: &dyn Memory, stack: &[u64], about: &str) {
    for kind in KINDS {
        let values = GoValues::new(memory);
        let mut places = kind.find(&values, stack);
        // Also what was not found to be a pool.
        places.extend_from_slice(&stack[..stack.len().min(3)]);
        for address in places {
            let began = Instant::now();
            let pool = kind.read(&values, address, began + Duration::from_millis(5));
            assert!(began.elapsed() < Duration::from_secs(5), "{about}: it takes too long");
            if let Some(numbers) = pool.numbers {
                assert!(numbers.idle <= numbers.open, "{about}: {numbers:?}");
                assert!(numbers.open < 1 << 32, "{about}: {numbers:?}");
            }
            let mut descriptors: Vec<_> = pool.descriptors.iter().map(|one| one.0).collect();
            descriptors.sort_unstable();
            assert!(descriptors.windows(2).all(|pair| pair[0] < pair[1]), "{about}");
        }
    }
}

#[test]
fn random_words() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let stack: Vec<u64> = (0..40).map(|_| random.u64(..0x400) << 3).collect();
        assert_makes_sense(&Random(seed), &stack, &format!("seed {seed}"));
    }
}

#[test]
fn pools_with_a_few_wrong_words() {
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let layout = if random.bool() { "condition" } else { "semaphore" };
        let (mut memory, outer): (MadeUp, u64) = pgxpool::tests::made_up(layout);
        let addresses = memory.addresses();
        for _ in 0..=random.usize(..3) {
            let at = addresses[random.usize(..addresses.len())];
            let word = match random.u8(..4) {
                0 => random.u64(..8),
                1 => u64::MAX >> random.u32(..64),
                2 => random.u64(..),
                // Circles and places in the middle of something.
                _ => addresses[random.usize(..addresses.len())],
            };
            memory.put(at, &[word]);
        }
        assert_makes_sense(&memory, &[outer], &format!("seed {seed}, {layout}"));
    }
}

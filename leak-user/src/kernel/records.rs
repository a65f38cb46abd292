//! Reading the flight recorder: the stacks that the kernel programs keep of connections' latest requests.
//!
//! Records are copied, not mapped: little of the recorder's memory is ever read, and all of a mapping would be
//! this process's.

use aya::maps::{HashMap, Map, MapData};
use leak_common::stack::{MAX_STACK, RecordNumber, SHORT_STACK, StackHeader, StackRecord};

use super::load::Value;
use crate::error::KernelError;
use crate::event::ConnectionId;

/// How often a record that is being written is read again.
const ATTEMPTS: u32 = 8;

/// The records of one length, by number.
type OfLength<const N: usize> = HashMap<MapData, u32, Value<StackRecord<N>>>;

/// All records.
pub(super) struct Records {
    short: OfLength<SHORT_STACK>,
    long: OfLength<MAX_STACK>,
    /// How many uses of each connection are kept.
    uses: u32,
}

impl Records {
    /// The records in the maps that `take` finds, where `uses` uses of each connection are kept.
    pub(super) fn new(
        uses: u32,
        mut take: impl FnMut(&'static str) -> Result<Map, KernelError>,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            short: HashMap::try_from(take("SHORT_RECORDS")?)?,
            long: HashMap::try_from(take("LONG_RECORDS")?)?,
            uses,
        })
    }

    /// The stack of this request of the connection with this slot; `None` when there is none or the kernel
    /// keeps writing it.
    pub(super) fn stack(
        &self,
        slot: u32,
        id: ConnectionId,
        request: u64,
    ) -> Option<(StackHeader, Vec<u8>)> {
        RecordNumber::all(slot, self.uses)
            .map(RecordNumber::key)
            .flat_map(|key| [whole(&self.short, key), whole(&self.long, key)])
            .flatten()
            .find(|(header, _)| header.cookie == id.0 && header.request == request)
    }
}

/// A record that was not written to while it was read.
fn whole<const N: usize>(records: &OfLength<N>, key: u32) -> Option<(StackHeader, Vec<u8>)>
where
    StackRecord<N>: bytemuck::Pod,
{
    for _ in 0..ATTEMPTS {
        let before = records.get(&key, 0).ok()?.0;
        let after = records.get(&key, 0).ok()?.0.header;
        let version = |header: &StackHeader| (header.sequence, header.cookie, header.request);
        if before.header.sequence % 2 == 0 && version(&before.header) == version(&after) {
            let len = (before.header.len as usize).min(N);
            return Some((before.header, before.bytes.get(..len)?.to_vec()));
        }
    }
    None
}

//! Reads the flight recorder: the stack of each connection's latest request.
//!
//! Records are copied, not mapped: little of the recorder is ever read, and the whole of a mapping
//! would count as this process's memory.

use aya::maps::{HashMap, Map, MapData};
use leak_common::stack::{MAX_STACK, RecordNumber, SHORT_STACK, StackHeader, StackRecord};

use crate::model::ConnectionId;
use crate::sources::kernel::error::KernelError;
use crate::sources::kernel::plain::MapValue;

/// Attempts to read a record that is being written.
const ATTEMPTS: u32 = 8;

/// Records of one length, by number.
type OfLength<const N: usize> = HashMap<MapData, u32, MapValue<StackRecord<N>>>;

/// All records.
pub(super) struct Records {
    short: OfLength<SHORT_STACK>,
    long: OfLength<MAX_STACK>,
    /// Uses kept of each connection.
    uses: u32,
}

impl Records {
    /// Reads the maps that `take` returns, with `uses` uses kept of each connection.
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

    /// The stack of this request of the connection in this slot; `None` when there is none or the
    /// kernel is busy writing it.
    pub(super) fn stack(
        &self,
        slot: u32,
        id: ConnectionId,
        request: u64,
    ) -> Option<(StackHeader, Vec<u8>)> {
        RecordNumber::all(slot, self.uses)
            .map(RecordNumber::key)
            .flat_map(|key| [consistent(&self.short, key), consistent(&self.long, key)])
            .flatten()
            .find(|(header, _)| header.cookie == id.0 && header.request == request)
    }
}

/// Reads a record; `None` if the kernel writes it each time that it is tried.
fn consistent<const N: usize>(records: &OfLength<N>, key: u32) -> Option<(StackHeader, Vec<u8>)>
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

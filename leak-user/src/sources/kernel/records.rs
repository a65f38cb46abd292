//! Reading the flight recorder: the stacks that the kernel programs keep of connections' latest requests.
//!
//! Records are copied, not mapped: little of the recorder's memory is ever read, and all of a mapping would be
//! this process's.

use aya::maps::{HashMap, Map, MapData};
use leak_common::stack::{MAX_STACK, SHORT_STACK, StackHeader, StackRecord};

use crate::error::KernelError;
use crate::model::ConnectionId;
use crate::sources::kernel::load::Value;

/// How often a record that is being written is read again.
const ATTEMPTS: u32 = 8;

/// The records of one length, by number.
type OfLength<const N: usize> = HashMap<MapData, u32, Value<StackRecord<N>>>;

/// All records.
pub(super) struct Records {
    short: OfLength<SHORT_STACK>,
    long: OfLength<MAX_STACK>,
    /// How many a connection may have.
    each: u32,
}

impl Records {
    /// The records of the maps that `take` finds, `each` of every connection.
    pub(super) fn new(
        each: u32,
        mut take: impl FnMut(&'static str) -> Result<Map, KernelError>,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            short: HashMap::try_from(take("SHORT_RECORDS")?)?,
            long: HashMap::try_from(take("LONG_RECORDS")?)?,
            each,
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
        let first = slot.checked_mul(self.each)?;
        (first..first.checked_add(self.each)?)
            .flat_map(|number| [whole(&self.short, number), whole(&self.long, number)])
            .flatten()
            .find(|(header, _)| header.cookie == id.0 && header.request == request)
    }
}

/// A record that was not written to while it was read.
fn whole<const N: usize>(records: &OfLength<N>, number: u32) -> Option<(StackHeader, Vec<u8>)>
where
    StackRecord<N>: leak_common::Plain,
{
    for _ in 0..ATTEMPTS {
        let before = records.get(&number, 0).ok()?.0;
        let after = records.get(&number, 0).ok()?.0.header;
        let version = |header: &StackHeader| (header.sequence, header.cookie, header.request);
        if before.header.sequence % 2 == 0 && version(&before.header) == version(&after) {
            let len = (before.header.len as usize).min(N);
            return Some((before.header, before.bytes.get(..len)?.to_vec()));
        }
    }
    None
}

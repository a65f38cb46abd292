//! Loads the kernel programs.

use std::os::fd::AsFd as _;

use aya::{Ebpf, EbpfLoader};
use bytemuck::bytes_of;
use leak_common::config::{Config, MAX_PORTS};
use leak_common::layout::Layout;

use crate::sources::kernel::error::KernelError;
use crate::sources::kernel::mapped_slots::{MappedSlots, Slot};
use crate::sources::kernel::settings::TracerSettings;

/// The object file of the kernel programs; empty if the BPF toolchain was missing at build time.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/leak-ebpf"));

/// The programs' read-only configuration.
fn config(settings: &TracerSettings) -> Config {
    let mut ports = [0; MAX_PORTS];
    let mut port_count = 0;
    for (to, port) in ports.iter_mut().zip(&settings.ports) {
        *to = port.to_be();
        port_count += 1;
    }
    Config {
        ports,
        port_count,
        filter_pids: u32::from(settings.pids.is_some()),
        stack_bytes: settings.stack_bytes,
        max_connections: settings.max_connections,
        drop_one_in: settings.drop_one_in,
        uses: settings.uses,
        stack_budget_ns: settings.stack_budget_ns,
    }
}

/// Loads the programs, with maps of the sizes that `settings` asks for.
pub(super) fn load(settings: &TracerSettings, layout: &Layout) -> Result<Ebpf, KernelError> {
    if OBJECT.is_empty() {
        return Err(KernelError::NotBuilt);
    }
    let level: u8 = if settings.debug_log { log::LevelFilter::Debug as u8 } else { 0 };
    // Short and long records may take the same amount of memory.
    let records = settings.max_records.saturating_mul(settings.uses + 1);
    EbpfLoader::new()
        .allow_unsupported_maps()
        .override_global("CONFIG", bytes_of(&config(settings)), true)
        .override_global("LAYOUT", bytes_of(layout), true)
        .override_global("AYA_LOG_LEVEL", &level, false)
        .map_max_entries("EVENTS", settings.ring_bytes)
        .map_max_entries("CONNECTIONS", settings.max_connections)
        .map_max_entries("FIRST_BYTES", settings.max_connections)
        .map_max_entries("FREE_SLOTS", settings.max_connections)
        .map_max_entries("SLOTS", settings.max_connections)
        .map_max_entries("SHORT_RECORDS", records)
        .map_max_entries("LONG_RECORDS", (records / 2).max(1))
        .map_max_entries("USES", if settings.uses > 0 { settings.max_connections } else { 1 })
        .load(OBJECT)
        .map_err(KernelError::from_load)
}

/// Maps the array of this name into memory.
pub(super) fn mapped<T: Slot>(
    ebpf: &mut Ebpf,
    name: &'static str,
    len: u32,
) -> Result<MappedSlots<T>, KernelError> {
    let map = ebpf.map(name).ok_or(KernelError::MissingMap { name })?;
    let aya::maps::Map::Array(data) = map else { return Err(KernelError::MissingMap { name }) };
    MappedSlots::new(data.fd().as_fd(), len)
        .map_err(|source| KernelError::Unmapped { name, source })
}

//! Reading what exists: the kernel programs' counters and the kernel's own list.

use std::collections::HashSet;
use std::io;

use tokio::task::{JoinHandle, spawn_blocking};

use crate::clock;
use crate::engine::Fact;
use crate::engine::table::Connection;
use crate::model::{Event, ListedSocket, TcpState, Timestamp};
use crate::sources::inventory::{Inventory, InventoryError};
use crate::sources::kernel::Reading;
use crate::sources::kernel::decode;
use crate::trace::collector::Collector;

impl Collector {
    /// Takes in the kernel's counters of every connection. Returns the connections that are closed but
    /// not destroyed, which nothing else lists.
    fn take_counters(&mut self, reading: Reading) -> io::Result<Vec<ListedSocket>> {
        let Reading { mut unchanged, changed } = reading;
        let now = clock::now();
        let mut told = Vec::new();
        for (connection, first_bytes) in changed {
            match decode::slot(&connection, first_bytes.as_deref()) {
                Ok(Some(event)) => {
                    if !self.is_wanted(&event) {
                        continue;
                    }
                    if let Event::Used { id, usage } = &event {
                        told.push(*id);
                        self.meet(usage.opener.process, Some(&usage.opener.comm))?;
                    }
                    self.tell_at(now, &Fact::Event(event))?;
                }
                Ok(None) => {}
                Err(error) => {
                    self.events.undecodable += 1;
                    log::warn!("{error}; it is left out");
                }
            }
        }
        // What the table lacks may find room the next time.
        let (table, tracer) = (self.engine.table(), &mut self.tracer);
        unchanged.retain(|&id| {
            table.get(id).is_some() || {
                tracer.forget_connection(id);
                false
            }
        });
        let known = told.iter().chain(&unchanged).filter_map(|&id| table.get(id));
        let undestroyed = known.filter_map(|known| self.closed_but_held(known)).collect();
        if !unchanged.is_empty() {
            self.tell_at(now, &Fact::Event(Event::Unchanged { ids: unchanged }))?;
        }
        Ok(undestroyed)
    }

    /// Lists what exists before anything is promised: a socket is known by its cookie, which a kprobe
    /// cannot give it, and one that was opened before the trace may have none until it is listed.
    pub(in crate::trace) async fn take_first_inventory(&mut self) -> anyhow::Result<()> {
        let first = self.start_inventory()?.await?;
        self.take_inventory(first)?;
        self.tracer.begin();
        Ok(())
    }

    /// Begins to list what exists, beside the event loop.
    pub(in crate::trace) fn start_inventory(
        &self,
    ) -> anyhow::Result<JoinHandle<Result<Inventory, InventoryError>>> {
        let ports = self.ports.clone();
        let scope = self.targets.scope(|| self.tracer.pids());
        let known: HashSet<_> =
            self.engine.table().connections().map(|connection| connection.id).collect();
        Ok(spawn_blocking(move || Inventory::take(&ports, &scope, &known)))
    }

    /// Corrects the table by what exists, and has the stacks of what has fallen silent resolved.
    pub(in crate::trace) fn take_inventory(
        &mut self,
        inventory: Result<Inventory, InventoryError>,
    ) -> anyhow::Result<()> {
        let begun = clock::thread_cpu_time();
        let counters = self.tracer.connections();
        let (read, reading) = (counters.count(), clock::thread_cpu_time());
        // Whatever ended until now is told before the counters and the list say that it is gone.
        self.drain_all()?;
        let undestroyed = self.take_counters(counters)?;
        match inventory {
            Ok(mut inventory) => {
                self.warn_of_gaps(&inventory);
                let (listed, listing) = (inventory.sockets.len(), inventory.listing);
                let holding = inventory.holding;
                inventory.sockets.extend(undestroyed);
                self.keep_wanted(&mut inventory.sockets)?;
                self.tell(&Fact::Event(inventory.into_event()))?;
                log::debug!(
                    "CPU time: {read} connections read in {:?} and taken in in {:?}, {listed} sockets listed \
                     in {listing:?}, their holders found in {holding:?}",
                    reading.saturating_sub(begun),
                    clock::thread_cpu_time().saturating_sub(reading),
                );
            }
            Err(error) => log::warn!("the connections that exist cannot be listed: {error}"),
        }
        self.want_destinations();
        Ok(self.resolve_last_uses()?)
    }

    /// What sock_diag would say of a connection that is closed but held by its process: it lists none.
    /// What only the list knows stays as it was. `None` when it is not closed, or nobody holds it: its
    /// end was missed.
    fn closed_but_held(&self, known: &Connection) -> Option<ListedSocket> {
        if known.tcp.state != TcpState::Close {
            return None;
        }
        // Until it is listed, whoever opened it has it.
        let is_listed = known.traffic.unread_bytes.is_some();
        let mut held_by = if is_listed { known.held_by.clone() } else { vec![known.process] };
        held_by.retain(|&holder| !self.engine.has_exited(holder));
        if held_by.is_empty() {
            return None;
        }
        let used = |moment: Option<Timestamp>| moment.unwrap_or(known.first_seen);
        Some(ListedSocket {
            id: known.id,
            endpoints: known.endpoints,
            tcp_state: known.tcp.state,
            unread_bytes: 0,
            bytes_sent: known.traffic.bytes_sent,
            bytes_received: known.traffic.bytes_received,
            last_send: used(known.traffic.last_send),
            last_receive: used(known.traffic.last_receive),
            held_by,
        })
    }

    /// Says what cannot be seen, once.
    pub(super) fn warn_of_gaps(&mut self, inventory: &Inventory) {
        let first = |said: &mut bool| !std::mem::replace(said, true);
        if let Some(reason) = &inventory.unread_reason
            && first(&mut self.warned.namespaces)
        {
            log::warn!("{reason}; connections there are followed only once they are used");
        }
        let unread = inventory.unread_processes;
        if unread > 0 && first(&mut self.warned.holders) {
            log::warn!(
                "the file descriptors of {unread} processes cannot be read, so it is not known which \
                 connections they hold; CAP_SYS_PTRACE allows it"
            );
        }
        let untraced = self.tracer.counters().table_full;
        if untraced > 0 && first(&mut self.warned.table_full) {
            log::warn!(
                "{untraced} connections are not traced because the kernel's table is full; raise \
                 --max-connections"
            );
        }
    }

    /// Leaves out sockets that only processes of other names hold.
    pub(super) fn keep_wanted(&mut self, sockets: &mut Vec<ListedSocket>) -> io::Result<()> {
        for socket in sockets.iter() {
            for &holder in &socket.held_by {
                self.meet(holder, None)?;
            }
        }
        let (table, targets) = (self.engine.table(), &mut self.targets);
        sockets.retain(|socket| {
            table.get(socket.id).is_some()
                || socket.held_by.iter().any(|&holder| targets.wants(holder, ""))
        });
        Ok(())
    }
}

//! The code that sends a finding's last statement.

use std::io;

use crate::engine::senders::Sender;
use crate::outputs::text::place::place;
use crate::outputs::text::style::{Paint, Tone};

/// Writes who sends it, or all who may have sent it.
pub(super) fn write(out: &mut impl io::Write, paint: Paint, sender: &Sender) -> io::Result<()> {
    let does = if sender.is_seen { "is sent by" } else { "is found in" };
    match sender.only() {
        Some(frame) => {
            let place = paint.tone(Tone::Strong, &place(frame));
            writeln!(out, "  its last statement {does} {place}")
        }
        None => {
            let places: Vec<_> = sender.code.iter().map(place).collect();
            writeln!(out, "  its last statement {does} each of: {}", places.join("; "))
        }
    }
}
